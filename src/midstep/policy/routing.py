"""Where a job goes, and whether its guarantee can be kept: the upper two levels, run in one process."""

from __future__ import annotations

from collections.abc import Iterable

from midstep.model.tiers import Tier
from midstep.policy.asks import Ask, Settings, stands_on
from midstep.policy.causes import NoGuarantee, NoQuota, Shortage, TooLarge
from midstep.policy.cluster import Cluster
from midstep.policy.floor import Floor
from midstep.policy.homes import homes_of, sharings
from midstep.policy.levels.cluster import summarise
from midstep.policy.levels.fleet import choose_region
from midstep.policy.levels.region import choose_cluster
from midstep.policy.levels.summary import Board, Need, Summary
from midstep.policy.plan import Admission
from midstep.policy.projects.quota import Projects

_TIERS = (Tier.PREMIUM, Tier.STANDARD, Tier.BASIC)


class Routing:
    """``cut_off``: regions that cannot be reached now; they go on alone, and nothing is sent there. What
    clusters tell is kept until something happens there."""

    def __init__(
        self, clusters: dict[tuple[str, str], Cluster], projects: Projects, settings: Settings
    ) -> None:
        self._clusters, self._projects, self._settings = clusters, projects, settings
        self.cut_off: set[str] = set()
        self._boards: dict[str, Board] = {}  # by region
        self._stale: dict[Cluster, None] = {}

    def changed(self, clusters: Iterable[Cluster]) -> None:
        """Something happened there."""
        self._stale.update(dict.fromkeys(clusters))

    def devices(self) -> int:
        """Of all clusters."""
        return sum(
            floor.pool.size for cluster in self._clusters.values() for floor in cluster.floors.values()
        )

    def commitment(self, ask: Ask, tier: Tier) -> float:
        """Devices that its guarantee must stand on, if it has one."""
        return stands_on(ask) if tier.guarantee else 0.0

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
        need, whole = Need.of(ask, guaranteed), guaranteed > 0

        def could(summary: Summary) -> bool:
            if 0 < ask.devices <= summary.largest:
                return True
            cluster = self._clusters[summary.region, summary.cluster]
            return _could(ask, cluster.floors[summary.device_type], whole)

        found: list[tuple[str, Summary]] = []
        for name, board in self._told():
            if ask.region in ("", name) and (chosen := choose_cluster(need, board, could)) is not None:
                found.append((name, chosen))
        return choose_region(need, found, self._settings.costs.far_bytes_per_s)

    def too_large(self, ask: Ask) -> TooLarge | None:
        """If no cluster that there is could ever run it, on as few devices as it can do with."""
        if any(_could(ask, floor, whole=False) for floor in self._floors(ask)):
            return None
        most = max((floor.pool.size for floor in self._floors(ask)), default=0)
        return TooLarge(ask.devices, most, ask.device_types)

    def _no_quota(self, ask: Ask) -> NoQuota | None:
        over = self._projects.over_promised(ask.project, self.commitment(ask, ask.tier))
        return NoQuota(ask.tier, *over) if over else None

    def _no_room(self, ask: Ask) -> NoGuarantee:
        need = Need.of(ask, 0.0)
        rooms = [need.room(summary) for _, board in self._told() for summary in board if need.at(summary)]
        return NoGuarantee(ask.tier, ask.devices, max(0, int(max(rooms, default=0.0))))

    def _told(self) -> Iterable[tuple[str, Board]]:
        """By region that can be reached, all brought up to date."""
        for cluster in self._stale:
            board = self._boards.setdefault(cluster.region, Board())
            for summary in summarise(cluster, self._settings.keep):
                board.put(summary)
        self._stale.clear()
        return ((name, board) for name, board in self._boards.items() if name not in self.cut_off)

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
