"""Where a job goes, and whether its guarantee can be kept: the upper two levels, run in one process."""

from __future__ import annotations

from collections.abc import Iterable

from midstep.model.tiers import Tier
from midstep.policy.asks import Ask, Settings
from midstep.policy.causes import NoGuarantee, NoQuota, Shortage, TooLarge
from midstep.policy.cluster import Cluster
from midstep.policy.floor import Floor
from midstep.policy.homes import homes_of, sharings
from midstep.policy.levels.cluster import summarise
from midstep.policy.levels.fleet import choose_region
from midstep.policy.levels.region import choose_cluster
from midstep.policy.levels.summary import Need, Summary
from midstep.policy.plan import Admission
from midstep.policy.quota import Projects

_TIERS = (Tier.PREMIUM, Tier.STANDARD, Tier.BASIC)


class Routing:
    """``cut_off``: regions that cannot be reached now; they go on alone, and nothing is sent there."""

    def __init__(
        self, clusters: dict[tuple[str, str], Cluster], projects: Projects, settings: Settings
    ) -> None:
        self._clusters, self._projects, self._settings = clusters, projects, settings
        self.cut_off: set[str] = set()

    def commitment(self, ask: Ask, tier: Tier) -> float:
        """Devices that its guarantee must stand on: all of them, as one device cannot be had in part."""
        return ask.devices * ask.milli / 1000 if tier.guarantee else 0.0

    def admit(self, ask: Ask) -> tuple[Admission, Cluster | None, Floor | None]:
        """As what, and where; the floor that its guarantee stands on."""
        if (why := self.too_large(ask)) is not None:
            return Admission(ask.job_id, None, why), None, None
        shortage: Shortage | None = None
        if ask.tier.guarantee:
            shortage = self._no_quota(ask)
            chosen = None if shortage else self.choose(ask, self.commitment(ask, ask.tier))
            if chosen is not None:
                cluster = self._clusters[chosen.region, chosen.cluster]
                return Admission(ask.job_id, ask.tier), cluster, cluster.floors[chosen.device_type]
            shortage = shortage or self._no_room(ask)
            if not ask.or_basic:
                return Admission(ask.job_id, None, shortage), None, None
        chosen = self.choose(ask, 0.0)
        if chosen is None:  # nodes of it are known, and all of them are cut off
            return Admission(ask.job_id, None, TooLarge(ask.devices, 0, ask.device_types)), None, None
        cluster = self._clusters[chosen.region, chosen.cluster]
        return Admission(ask.job_id, Tier.BASIC, shortage), cluster, None

    def choose(self, ask: Ask, guaranteed: float) -> Summary | None:
        """The fleet chooses a region, the region a cluster. Only where the job could ever run."""
        need = Need.of(ask, guaranteed)
        regions: dict[str, list[Summary]] = {}
        for cluster in self._reachable():
            for summary in summarise(cluster, self._settings.keep, ask.spot_ok):
                if _could(ask, cluster.floors[summary.device_type], whole=guaranteed > 0):
                    regions.setdefault(cluster.region, []).append(summary)
        if len(regions) == 1:
            return choose_cluster(need, next(iter(regions.values())))
        region = choose_region(need, regions.items(), self._settings.costs.far_bytes_per_s)
        return choose_cluster(need, regions[region]) if region is not None else None

    def too_large(self, ask: Ask) -> TooLarge | None:
        """If no cluster that there is could ever run it, on as few devices as it can do with."""
        floors = list(self._floors(ask))
        if any(_could(ask, floor, whole=False) for floor in floors):
            return None
        most = max((floor.pool.size for floor in floors), default=0)
        return TooLarge(ask.devices, most, ask.device_types)

    def _no_quota(self, ask: Ask) -> NoQuota | None:
        over = self._projects.over_promised(ask.project, self.commitment(ask, ask.tier))
        return NoQuota(ask.tier, *over) if over else None

    def _no_room(self, ask: Ask) -> NoGuarantee:
        left = 0
        for cluster in self._reachable():
            for summary in summarise(cluster, self._settings.keep, ask.spot_ok):
                if Need.of(ask, 0.0).at(summary):
                    left = max(left, int(summary.room))
        return NoGuarantee(ask.tier, ask.devices, max(0, left))

    def _reachable(self) -> Iterable[Cluster]:
        return (cluster for cluster in self._clusters.values() if cluster.region not in self.cut_off)

    def _floors(self, ask: Ask) -> Iterable[Floor]:
        for cluster in self._reachable():
            if not ask.region or cluster.region == ask.region:
                for kind, floor in cluster.floors.items():
                    if not ask.device_types or kind in ask.device_types:
                        yield floor


def _could(ask: Ask, floor: Floor, whole: bool) -> bool:
    """It would fit, were all free: with a device a rank, or (not ``whole``) with as few as it can do with."""
    pool = floor.pool
    if not pool.largest or ask.devices <= pool.largest:
        return pool.largest > 0
    homes = homes_of(ask.devices, pool.largest)
    return pool.fits(homes, 1 if whole else sharings(homes, ask.least)[-1])
