"""What must be true of all jobs together, at any moment (no device is given beyond 1); and whether a
placement may be given to a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from midstep.engine.errors import Stale
from midstep.engine.record import JobRecord
from midstep.model.fleet import Node
from midstep.model.job import MILLI, NodePlace, Placement
from midstep.model.lifecycle import Stage

DeviceKey = tuple[str, int]  # node, index on it


def devices_of(record: JobRecord) -> frozenset[DeviceKey]:
    """The devices that a job has: in use, reserved for a migration, or not yet confirmed to be free."""
    places: list[NodePlace] = [left.place for left in record.leftovers.values()]
    for placement in (
        record.placement if record.stage is not Stage.FROZEN else None,
        record.next,
        record.back,
    ):
        places.extend(placement.nodes if placement else ())
    return frozenset(
        (place.node, index) for place in places for rank in place.ranks for index in rank.devices
    )


def users_of_devices(records: Iterable[JobRecord]) -> dict[DeviceKey, dict[str, int]]:
    """Device -> the jobs that have it, and how much of it each has, in thousandths."""
    users: dict[DeviceKey, dict[str, int]] = {}
    for record in records:
        for key in sorted(devices_of(record)):
            users.setdefault(key, {})[record.job_id] = record.spec.milli
    return dict(sorted(users.items()))


def verify(
    records: Iterable[JobRecord], nodes: Mapping[str, Node], record: JobRecord, placement: Placement
) -> None:
    """Refuse a placement that is not (or no longer) possible; raises Stale with the reason."""
    taken = users_of_devices(other for other in records if other.job_id != record.job_id)
    for place in placement.nodes:
        node = nodes.get(place.node)
        if node is None or node.region != placement.region:
            raise _stale(record, f"node {place.node} is not available in region {placement.region}")
        known = {device.index for device in node.devices}
        for index in sorted({index for rank in place.ranks for index in rank.devices}):
            if index not in known:
                raise _stale(record, f"node {place.node} has no device {index}")
            users = taken.get((place.node, index), {})
            if sum(users.values()) + record.spec.milli > MILLI:
                raise _stale(record, f"device {index} of {place.node} was given to {', '.join(users)}")
    for fault in _faults_of(record, placement):
        raise _stale(record, fault)


def check(records: Iterable[JobRecord]) -> None:
    """Raises AssertionError where an invariant does not hold. For tests, and after every step in debug
    runs."""
    everything = list(records)
    for key, users in users_of_devices(everything).items():
        assert sum(users.values()) <= MILLI, f"device {key} is given beyond 1 to {', '.join(users)}"
    for record in everything:
        name = f"job {record.job_id} ({record.stage})"
        holds = record.stage not in (Stage.WAITING, Stage.OVER)
        assert (record.placement is not None) == holds, f"{name} has placement {record.placement}"
        assert (record.stage is Stage.OVER) <= (record.outcome is not None), f"{name} has no outcome"
        assert not record.keeps or record.stage is Stage.DUMPING, f"{name} keeps nothing"
        runs = record.stage in (Stage.JOINING, Stage.RUNNING)
        assert record.storing is None or runs, f"{name} stores a checkpoint"
        assert record.older is None or record.snapshot is not None, f"{name} has only an older snapshot"
        still = record.stage in (Stage.WAITING, Stage.OVER)
        assert still or not record.away, f"{name} is here, and in region {record.away}"
        assert record.part is None or record.stage in (Stage.HOLDING, Stage.JOINING), f"{name} keeps a part"
        assert record.spec.milli == MILLI or (record.spec.world_size, record.devices <= 1) == (1, True), (
            f"{name} has a part of several devices"
        )
        for placement in (record.placement, record.next, record.back):
            faults = _faults_of(record, placement) if placement else []
            assert not faults, f"{name}: {faults[0]}"
        nodes = {place.node for place in record.nodes}
        assert not nodes & set(record.leftovers), f"{name} is placed where leftovers of it may be"
        assert all(report.epoch == record.epoch for report in record.reports.values()), f"{name} mixes epochs"
        assert set(record.reports) <= nodes, f"{name} keeps reports of nodes that it is not on"


def check_step(before: JobRecord, after: JobRecord) -> None:
    """Raises AssertionError where one step did what no step may do."""
    assert after.epoch >= before.epoch, "an epoch shrank"
    moved = after.placement is not None and after.placement != before.placement
    assert not moved or after.epoch > before.epoch, "a placement changed under one epoch"
    returned = bool(before.away) and after.hops > before.hops
    assert before.stage is not Stage.OVER or after.stage is Stage.OVER or returned, "an ended job came back"
    assert not before.away or returned or not devices_of(after), "a job that is elsewhere has devices here"
    assert not before.homes or after.homes == before.homes, "virtual hosts changed"


def _faults_of(record: JobRecord, placement: Placement) -> list[str]:
    """What is wrong with a placement in itself: the gang must be whole and lead by rank 0."""
    faults: list[str] = []
    ranks = sorted(rank.rank for place in placement.nodes for rank in place.ranks)
    if ranks != list(range(record.spec.world_size)):
        faults.append(f"the placement has ranks {ranks} of {record.spec.world_size}")
    if [place.index for place in placement.nodes] != list(range(len(placement.nodes))):
        faults.append("the placement's nodes are not numbered in order")
    if len({place.node for place in placement.nodes}) != len(placement.nodes):
        faults.append("the placement names a node twice")
    elif ranks and not any(rank.rank == 0 for rank in placement.nodes[0].ranks):
        faults.append("rank 0 is not on the leading node")
    if any(not rank.devices for place in placement.nodes for rank in place.ranks):
        faults.append("the placement has a rank without a device")
    homes = tuple(tuple(sorted(members)) for members in _by_home(placement))
    if parted := _parted(placement):
        faults.append(f"the placement parts virtual host {parted[0]}")
    if record.homes and homes != record.homes:
        faults.append(f"the placement has virtual hosts {homes}, the job {record.homes}")
    return faults


def _parted(placement: Placement) -> list[int]:
    """Virtual hosts that are on several nodes: their files would be in several places."""
    nodes: dict[int, set[str]] = {}
    for place in placement.nodes:
        for rank in place.ranks:
            nodes.setdefault(rank.home, set()).add(place.node)
    return sorted(home for home, names in nodes.items() if len(names) > 1)


def _by_home(placement: Placement) -> list[list[int]]:
    homes: dict[int, list[int]] = {}
    for place in placement.nodes:
        for rank in place.ranks:
            homes.setdefault(rank.home, []).append(rank.rank)
    return [homes[home] for home in sorted(homes)]


def _stale(record: JobRecord, message: str) -> Stale:
    return Stale("stale_plan", message, record.shown)
