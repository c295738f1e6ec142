"""Jobs that wait go where devices are free: within a region at once, to another one when they have waited,
and are expected to wait, longer than carrying their snapshot there takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from midstep.policy.asks import Settings
from midstep.policy.cluster import Cluster
from midstep.policy.ledger import Job
from midstep.policy.levels.cluster import room

AT_ONCE = 32  # jobs a cluster gets at one moment
Transfer = Callable[[Job, Cluster, float], None]


def spill(
    clusters: dict[tuple[str, str], Cluster],
    changed: Iterable[Cluster],
    transfer: Transfer,
    cut_off: set[str],
    settings: Settings,
    now_s: float,
) -> list[Cluster]:
    """Give waiting jobs to clusters that have changed and have devices free that nobody who waits there can
    use. Those that got some."""
    receivers: list[Cluster] = []
    for cluster in changed:
        free = sum(floor.pool.free for floor in cluster.floors.values())
        if not free or cluster.busy or cluster.region in cut_off:
            continue
        donors = [
            other
            for other in clusters.values()
            if other is not cluster
            and other.waiting.count
            and (other.region == cluster.region or other.region not in cut_off)
        ]
        donors.sort(key=lambda other: (other.region != cluster.region, -other.waiting.devices, other.name))
        got = 0
        for donor in donors:
            for job in list(_willing(donor, cluster, settings, now_s)):
                if free <= 0 or got >= AT_ONCE:
                    break
                transfer(job, cluster, now_s)
                free -= max(1, job.ask.devices)
                got += 1
        if got:
            receivers.append(cluster)
    return receivers


def rescue(
    clusters: dict[tuple[str, str], Cluster],
    changed: Iterable[Cluster],
    transfer: Transfer,
    cut_off: set[str],
    settings: Settings,
    now_s: float,
) -> list[Cluster]:
    """Jobs with a guarantee that their cluster cannot place (its nodes left) go where it can stand;
    if their cluster could never run them any more, to any that could. Those clusters that got some."""
    receivers: dict[Cluster, None] = {}
    for cluster in changed:
        for job in list(cluster.owed.up()):
            chosen: tuple[tuple[bool, float, str], Cluster] | None = None
            stranded = not cluster.could(job)
            for other in clusters.values():
                if other is cluster or not _may_go(job, cluster, other, cut_off) or not other.could(job):
                    continue
                left = max(room(f, settings.keep, job.ask.spot_ok) for f in other.floors.values())
                key = (other.region != cluster.region, -left, other.name)
                if (stranded or left >= job.size) and (chosen is None or key < chosen[0]):
                    chosen = (key, other)
            if chosen is not None:
                transfer(job, chosen[1], now_s)
                receivers[chosen[1]] = None
    return list(receivers)


def _may_go(job: Job, here: Cluster, there: Cluster, cut_off: set[str]) -> bool:
    if here.region == there.region:
        return True
    return not job.ask.region and not cut_off & {here.region, there.region}


def _willing(donor: Cluster, cluster: Cluster, settings: Settings, now_s: float) -> Iterable[Job]:
    far = donor.region != cluster.region
    classes = sorted(donor.waiting.classes(), key=lambda known: (known.jobs.lowest or 0, repr(known.kind)))
    for known in classes:
        first = known.jobs.first()
        assert first is not None
        if not cluster.could(first):
            continue
        stranded = not donor.could(first)  # whatever it has, it is lost where it is
        for count, job in enumerate(known.jobs.up()):
            if count >= AT_ONCE:
                break
            carry_s = job.snapshot_bytes / settings.costs.far_bytes_per_s
            bound = far and (job.ask.region or (job.again and not job.ask.may_move and not stranded))
            if not bound and (not far or now_s - job.queued_s >= max(settings.spill_s, carry_s)):
                yield job
