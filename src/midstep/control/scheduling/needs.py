"""What would have to change for a job to have its devices: each possible change is tried on the fleet as it
is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from midstep.control.scheduling.causes import counted
from midstep.control.scheduling.scheduler import picture, want_now
from midstep.engine.check import devices_of
from midstep.engine.record import Intent, JobRecord
from midstep.model.fleet import NodeStatus
from midstep.model.lifecycle import Stage
from midstep.policy.picture import Picture, Want
from midstep.policy.place import hopeless, plan

_SHOWN = 3  # jobs, of those that would make room


def would_run_if(
    record: JobRecord,
    records: Iterable[JobRecord],
    nodes: Mapping[str, NodeStatus],
    cordoned: tuple[str, ...],
) -> tuple[str, ...]:
    """Sentences that go on from "it would have its devices if"; none: it has them, or needs its user."""
    if record.stage in (Stage.ENDING, Stage.OVER):
        return ()
    if record.intent is Intent.SUSPEND:
        return ("its user resumed it (`midstep resume`)",)
    others = [other for other in records if other.job_id != record.job_id]
    want = want_now(record, cordoned)
    if want is None:
        return ()
    fleet = picture([record, *others], nodes)
    found = [*_fewer(record, want, fleet), *_freer(record, want, fleet)]
    found += _nodes(want, fleet, cordoned)
    found += _jobs(want, others, nodes)
    if not found and (reason := hopeless(fleet, replace(want, never=()))) is not None:
        found.append(f"the fleet were larger: it {reason}")
    return tuple(found)


def _fits(fleet: Picture, want: Want) -> bool:
    return bool(plan(fleet, [want]).starts)


def _fewer(record: JobRecord, want: Want, fleet: Picture) -> list[str]:
    most = min(want.spec.devices, record.spec.world_size + 1)
    for devices in range(most - 1, 0, -1):
        if _fits(fleet, replace(want, spec=replace(want.spec, devices=devices))):
            least = record.spec.least
            rule = "" if devices >= least else f", fewer than the {least} that it asks for at least"
            return [f"it took {counted(devices)}{rule} (`midstep resize`)"]
    return []


def _freer(record: JobRecord, want: Want, fleet: Picture) -> list[str]:
    """Without one of the constraints that it was submitted with."""
    ways = (
        (want.node, f"it need not be on node {want.node}", replace(want, node=None)),
        (want.region, f"it need not be in {want.region}", replace(want, region=None)),
        (
            want.spec.device_type,
            f"it took other devices than {want.spec.device_type}",
            replace(want, spec=replace(want.spec, device_type=None)),
        ),
    )
    constraints = record.spec.node, record.spec.region, record.spec.device_type
    return [
        words
        for (given, words, other), own in zip(ways, constraints, strict=True)
        if given and own and _fits(fleet, other)
    ]


def _nodes(want: Want, fleet: Picture, cordoned: tuple[str, ...]) -> list[str]:
    """Nodes that are there, and not in use."""
    found: list[str] = []
    for name in cordoned:
        fewer = tuple(never for never in want.never if never != name)
        if name in want.never and _fits(fleet, replace(want, never=fewer)):
            found.append(f"node {name} were uncordoned (`midstep uncordon {name}`)")
    for node in fleet.down:
        down = tuple(other for other in fleet.down if other.name != node.name)
        if _fits(replace(fleet, nodes=(*fleet.nodes, node), down=down), want):
            found.append(f"node {node.name} were connected again")
    return found


def _jobs(want: Want, others: list[JobRecord], nodes: Mapping[str, NodeStatus]) -> list[str]:
    """Jobs whose end alone would be enough."""
    holders = [other for other in others if devices_of(other)]
    holders.sort(key=lambda other: (-other.spec.tier.turn, -other.submitted_s, other.job_id))
    found: list[str] = []
    for holder in holders:
        left = picture([other for other in others if other is not holder], nodes)
        if _fits(left, want):
            found.append(holder.spec.name or holder.job_id)
    if found:
        more = " or another one" if len(found) > _SHOWN else ""
        return [f"job {' or '.join(found[:_SHOWN])}{more} ended or were suspended"]
    empty = picture([], nodes)
    if holders and _fits(empty, want):
        devices = counted(want.spec.amount(want.spec.devices))
        return [f"{devices} were free together: several jobs have to end"]
    return []
