"""Jobs that wait go where devices are free: within a region at once, to another one when they have waited,
and are expected to wait, longer than carrying their snapshot there takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from midstep.policy.asks import Settings, stands_on
from midstep.policy.cluster import Cluster
from midstep.policy.ledger import Job
from midstep.policy.levels.cluster import room
from midstep.policy.waiting import fits_whole

AT_ONCE = 32  # jobs a cluster gets at one moment
STAYS_S = 900.0  # a job that another cluster took over is not sent on so soon
Transfer = Callable[[Job, Cluster, float], None]


def spill(
    clusters: dict[tuple[str, str], Cluster],
    changed: Iterable[Cluster],
    transfer: Transfer,
    cut_off: set[str],
    settings: Settings,
    now_s: float,
) -> list[Cluster]:
    """Give waiting jobs to clusters that have devices free that nobody who waits there can use: to those that
    have changed anybody's, to the others of their regions the ones of those that have changed. Those clusters
    that got some."""
    anew = dict.fromkeys(changed)
    waits = [cluster for cluster in anew if cluster.waiting.count]
    regions = {cluster.region for cluster in waits}
    beside = [other for other in clusters.values() if other.region in regions and other not in anew]
    receivers: list[Cluster] = []
    for cluster in (*anew, *beside):
        free = sum(floor.pool.free for floor in cluster.floors.values())
        if not free or cluster.busy or cluster.region in cut_off:
            continue
        donors = [
            other
            for other in (clusters.values() if cluster in anew else waits)
            if other is not cluster
            and other.waiting.count
            and (other.region == cluster.region or (cluster in anew and other.region not in cut_off))
        ]
        donors.sort(key=lambda other: (other.region != cluster.region, -other.waiting.devices, other.name))
        got = 0
        for donor in donors:
            if free <= 0 or got >= AT_ONCE:
                break
            for job in list(islice(_willing(donor, cluster, settings, now_s), min(free, AT_ONCE - got))):
                if free <= 0:
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
    """Jobs with a guarantee that their cluster cannot place (its nodes left, or what is free lies apart) go
    where it can stand and they would have all of their devices; who has waited, or whose cluster could never
    run it any more, also where it would have fewer. Those clusters that got some."""
    receivers: dict[Cluster, None] = {}
    for cluster in changed:
        for job in list(cluster.owed.up()):
            if now_s - job.sent_s < settings.tick_s:
                continue  # it has just come
            reachable = [it for it in clusters.values() if _may_go(job, cluster, it, cut_off)]
            chosen = _firm(job, cluster, reachable, settings)
            waited = now_s - job.queued_s >= settings.spill_s
            if chosen is None and (waited or not cluster.could(job)):
                chosen = _any(job, cluster, reachable, settings)
            if chosen is not None:
                transfer(job, chosen, now_s)
                receivers[chosen] = None
    return list(receivers)


def refuge(
    clusters: dict[tuple[str, str], Cluster], job: Job, cluster: Cluster, settings: Settings, now_s: float
) -> bool:
    """Another cluster of the region would take over a job with a guarantee, that has not just been sent: it
    would have all of its devices there, and its guarantee could stand there."""
    if now_s - job.sent_s < STAYS_S or (job.again and not job.ask.may_move):
        return False
    near = [other for other in clusters.values() if other.region == cluster.region]
    return _firm(job, cluster, near, settings) is not None


def _firm(job: Job, here: Cluster, clusters: Iterable[Cluster], settings: Settings) -> Cluster | None:
    """Of other clusters the one where the most is left for a guarantee, near ones first."""
    best: tuple[tuple[bool, float, str], Cluster] | None = None
    for other in clusters:
        if other is here:
            continue
        for floor in other.floors.values():
            left = room(floor, settings.keep, job.ask.spot_ok)
            key = (other.region != here.region, -left, other.name)
            if left >= stands_on(job.ask) and (best is None or key < best[0]) and fits_whole(job, floor):
                best = (key, other)
    return best[1] if best else None


def _any(job: Job, here: Cluster, clusters: Iterable[Cluster], settings: Settings) -> Cluster | None:
    """Where the most is left, whether it suffices or not if it is lost where it is."""
    stranded = not here.could(job)
    best: tuple[tuple[bool, float, str], Cluster] | None = None
    for other in clusters:
        if other is not here and other.could(job):
            left = max(room(floor, settings.keep, job.ask.spot_ok) for floor in other.floors.values())
            key = (other.region != here.region, -left, other.name)
            if (stranded or left >= stands_on(job.ask)) and (best is None or key < best[0]):
                best = (key, other)
    return best[1] if best else None


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
