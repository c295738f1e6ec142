"""Jobs that wait go where devices are free: within a region at once, to another one when they have waited,
and are expected to wait, longer than carrying their snapshot there takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from midstep.policy.asks import Settings
from midstep.policy.cluster import Cluster
from midstep.policy.ledger import Job

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
    """Give waiting jobs to clusters that have changed and have free devices and nobody who waits. Those that
    got some."""
    receivers: list[Cluster] = []
    for cluster in changed:
        free = sum(floor.pool.free for floor in cluster.floors.values())
        if not free or cluster.waiting.count or cluster.owed or cluster.region in cut_off:
            continue
        donors = [
            other
            for other in clusters.values()
            if other.waiting.count and (other.region == cluster.region or other.region not in cut_off)
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


def _willing(donor: Cluster, cluster: Cluster, settings: Settings, now_s: float) -> Iterable[Job]:
    far = donor.region != cluster.region
    for known in sorted(
        donor.waiting.classes(), key=lambda known: (known.jobs.lowest or 0, repr(known.kind))
    ):
        first = known.jobs.first()
        assert first is not None
        if not cluster.could(first):
            continue
        for count, job in enumerate(known.jobs.up()):
            if count >= AT_ONCE:
                break
            if far and (job.ask.region or not job.ask.may_move):
                break
            carry_s = job.snapshot_bytes / settings.costs.far_bytes_per_s
            if not far or now_s - job.queued_s >= max(settings.spill_s, carry_s):
                yield job
