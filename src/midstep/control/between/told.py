"""What a region tells the level above it: its jobs, its clusters, and who waits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from midstep.control.fleet import Fleet
from midstep.control.scheduling.asking import ask
from midstep.control.scheduling.planner import Planner
from midstep.control.service import Service
from midstep.control.vaults.forking import refs
from midstep.engine.check import users_of_devices
from midstep.engine.parting import ready
from midstep.engine.record import JobRecord
from midstep.model.lifecycle import Stage
from midstep.policy.asks import Ask
from midstep.policy.levels.cluster import summarise
from midstep.wire.between import ClusterTold, JobTold, RegionTold, WaiterTold

MOST_WAITING = 256


class Teller:
    """``boot``: another one at each start of this controller."""

    def __init__(self, service: Service, fleet: Fleet, planner: Planner, boot: str) -> None:
        self._service, self._fleet, self._planner, self._boot = service, fleet, planner, boot
        self._count = 0
        self._said: tuple[int, tuple[JobTold, ...]] = (-1, ())
        service.on_change.append(self._changed)

    def told(self, seen: str) -> RegionTold:
        """All of it; the jobs only if they are not as they were ``seen``."""
        serial = f"{self._boot}.{self._count}"
        return RegionTold(
            self._fleet.regions,
            serial,
            None if seen == serial else self._jobs(),
            tuple(sorted(self._fleet.nodes)),
            tuple(self._clusters()),
            tuple(self._waiting()),
        )

    def _jobs(self) -> tuple[JobTold, ...]:
        if self._said[0] != self._count:
            self._said = (self._count, tuple(map(job_told, self._service.records.values())))
        return self._said[1]

    def _changed(self, before: JobRecord | None, after: JobRecord) -> None:
        asked = self._said[0] >= 0  # else whoever asks first is told all
        if asked and (before is None or job_told(before) != job_told(after)):
            self._count += 1

    def _clusters(self) -> Iterator[ClusterTold]:
        if not self._planner.steers:
            yield from self._unsteered()
            return
        scheduler = self._planner.pilot.scheduler
        for cluster in scheduler.clusters.values():
            for one in summarise(cluster, scheduler.settings.keep):
                room = (one.room, one.room_spot)
                names = (one.region, one.cluster, one.device_type)
                yield ClusterTold(*names, one.size, one.free, one.largest, *room, one.waiting)

    def _unsteered(self) -> Iterator[ClusterTold]:
        """Where nothing can be saved the policy's scheduler knows nothing: what is free is counted."""
        used = users_of_devices(self._service.records.values())
        found: dict[tuple[str, str, str], list[int]] = {}
        for name, node in sorted(self._fleet.connected.items()):
            own: dict[str, list[bool]] = {}
            for device in node.devices:
                own.setdefault(device.device_type, []).append((name, device.index) not in used)
            for kind, free in own.items():
                sums = found.setdefault((node.region, node.cluster, kind), [0, 0, 0])
                sums[0], sums[1] = sums[0] + len(free), sums[1] + sum(free)
                sums[2] = max(sums[2], len(free))
        specs = [record.spec for record in self._service.records.values() if record.waits]
        waiting = sum(spec.amount(spec.devices) for spec in specs)
        for names, (size, free, largest) in found.items():
            yield ClusterTold(*names, size, free, largest, 0.0, 0.0, float(waiting))

    def _waiting(self) -> Iterator[WaiterTold]:
        """The first ones. What could never run here is not in the scheduler's queue: it comes last."""
        if self._planner.steers:
            yield from islice(self._waiters(), MOST_WAITING)

    def _waiters(self) -> Iterator[WaiterTold]:
        planner, records, now_s = self._planner, self._service.records, self._service.now_s()
        pilot, routing = planner.pilot, planner.pilot.scheduler.routing
        waiting = [job_id for job_id, record in records.items() if record.waits]
        others = sorted(job_id for job_id in waiting if not pilot.knows(job_id))
        for job_id in (*planner.offered, *pilot.scheduler.queue(), *others):
            record, drained = records[job_id], planner.offered.get(job_id, "")
            wanted = ask(record, now_s) if _may_leave(record, drained) else None
            if wanted is not None and not wanted.region:  # else it was submitted to be here
                stranded = not drained and routing.too_large(wanted) is not None
                guaranteed = routing.commitment(wanted, record.spec.tier)
                yield _waiter(record, wanted, now_s, guaranteed, stranded, drained)


def _may_leave(record: JobRecord, drained: str) -> bool:
    can = record.settled if drained else record.waits and record.stage is Stage.WAITING
    return can and record.parting is None


def _waiter(
    record: JobRecord, wanted: Ask, now_s: float, guaranteed: float, stranded: bool, drained: str
) -> WaiterTold:
    here = record.placement.region if drained and record.placement is not None else ""
    return WaiterTold(
        record.job_id,
        record.devices if drained else wanted.devices,
        record.devices if drained else wanted.least,
        record.spec.tier,
        wanted.device_types,
        here or (record.snapshot.region if record.snapshot else ""),
        record.snapshot_bytes,
        guaranteed,
        wanted.spot_ok,
        now_s - record.queued_s,
        stranded,
        drained,
    )


def job_told(record: JobRecord) -> JobTold:
    """Where one job is."""
    parting = record.parting
    return JobTold(
        job_id=record.job_id,
        name=record.spec.name,
        submitted_s=record.submitted_s,
        hops=record.hops,
        away=record.away,
        leaving=parting.region if parting is not None and not parting.handed else "",
        ready=ready(record),
        copies=parting is not None and parting.copies,
        ahead=parting is not None and parting.ahead,
        over=record.stage is Stage.OVER,
        rests_on=tuple(sorted({ref.region for ref in refs(record)})),
        snapshot=record.snapshot.snapshot_id if record.snapshot else "",
        snapshot_region=record.snapshot.region if record.snapshot else "",
        snapshot_bytes=record.snapshot_bytes,
        saves=record.storing is not None or record.keeps,
        workdir_blob=record.spec.workdir_blob or "",
        ranks=record.spec.world_size,
        least=_least(record),
        node=(parting.node or "") if parting is not None else "",
        types=(record.spec.device_type,) if record.spec.device_type else (),
    )


def _least(record: JobRecord) -> int:
    """Devices without which it does not run where it goes."""
    asked = record.parting.devices if record.parting is not None else None
    return asked or record.asked or record.spec.least
