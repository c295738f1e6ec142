"""Projects: what each is due, has, and has been promised. A path "team/sub" counts for "team", too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from midstep.policy.asks import Quota
from midstep.policy.order import BORROWED
from midstep.policy.projects.shares import chain, fair_shares, parent

INF = float("inf")


@dataclass(frozen=True, slots=True)
class Usage:
    """A project: devices that it is due (None: no quota), has, and has been promised. ``fair``: its fair
    share now; None: no project has a quota, or it wants nothing."""

    project: str
    due: float | None
    limit: float | None
    used: float
    promised: float
    fair: float | None = None


def ancestors(project: str) -> list[str]:
    """The path and those above it, the highest first: "a/b" -> "a", "a/b"."""
    parts = project.split("/") if project else []
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


class Projects:
    """``dirty``: paths with a quota whose use has changed since this was last emptied; ``changed``: others.
    ``wants``: what living jobs ask for, ``fair``: fair shares; by paths as of `shares.chain`."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self.quotas = dict(quotas)
        self.used: dict[str, float] = {}
        self.promised: dict[str, float] = {}
        self.wants: dict[str, float] = {}
        self.fair: dict[str, float] = {}
        self.dirty: dict[str, None] = {}
        self.changed: dict[str, None] = {}

    def want(self, project: str, devices: float) -> None:
        """Jobs of it ask for so many more (or fewer)."""
        for path in chain(project):
            left = self.wants.get(path, 0.0) + devices
            if left > 1e-9:
                self.wants[path] = left
            else:
                self.wants.pop(path, None)
        self._change(project)

    def bounds(self, path: str) -> tuple[float, float]:
        """What it is due, and what is fair. Who is in a project is bound by what that is due."""
        if not self.quotas:
            return INF, INF
        quota = self.quotas.get(path)
        due = quota.devices if quota else INF if parent(path) else 0.0
        return due, max(self.fair.get(path, INF), due if quota else 0.0)

    def claims(self, project: str, borrowed: int) -> list[tuple[int, float]]:
        """How many devices more a job may take from others: (from those in this band or after it, so many).
        Its project does not take from others what it would have to give back."""
        if not self.quotas or borrowed > 1:
            return [(0, INF)]
        left = [(*self.bounds(path), self.used.get(path, 0.0)) for path in chain(project)]
        fair = min(fair - used for _, fair, used in left)
        if borrowed:
            return [(0, fair)]
        return [(0, min(due - used for due, _, used in left)), (BORROWED, fair)]

    def use(self, project: str, devices: float) -> None:
        """So many more (or fewer)."""
        for path in chain(project):
            self.used[path] = self.used.get(path, 0.0) + devices
        self._change(project)

    def promise(self, project: str, devices: float) -> None:
        """So many more (or fewer) that guarantees stand on."""
        for path in chain(project):
            self.promised[path] = self.promised.get(path, 0.0) + devices

    def bound(self, project: str) -> list[str]:
        """Its paths that have a quota."""
        return [path for path in ancestors(project) if path in self.quotas] if self.quotas else []

    def limiter(self, project: str) -> str:
        """The project itself, if a limit binds it, or one above it."""
        return project if any(self.quotas[path].limit is not None for path in self.bound(project)) else ""

    def over_limit(self, project: str, devices: float) -> tuple[str, float] | None:
        """The path, with its limit, that so many devices more would go beyond."""
        for path in self.bound(project):
            limit = self.quotas[path].limit
            if limit is not None and self.used.get(path, 0.0) + devices > limit + 1e-9:
                return path, limit
        return None

    def limit_left(self, project: str) -> float:
        """Devices that it may have besides those it has."""
        limits = [(self.quotas[path].limit, self.used.get(path, 0.0)) for path in self.bound(project)]
        return min((limit - used for limit, used in limits if limit is not None), default=float("inf"))

    def borrows(self, project: str, devices: float) -> bool:
        """So many devices more would be more than it is due."""
        return any(
            self.used.get(path, 0.0) + devices > self.quotas[path].devices + 1e-9
            for path in self.bound(project)
        )

    def over_promised(self, project: str, devices: float) -> tuple[str, float, float] | None:
        """The path, what it is due and what it has been promised, if a guarantee for so many more goes beyond
        that."""
        for path in self.bound(project):
            due, promised = self.quotas[path].devices, self.promised.get(path, 0.0)
            if promised + devices > due + 1e-9:
                return path, due, promised
        return None

    def fair_now(self, total: float) -> dict[str, float]:
        """Of so many devices; {}: no project has a quota."""
        return fair_shares(total, self.quotas, self.wants, self.promised) if self.quotas else {}

    def usage(self, total: float) -> list[Usage]:
        """All projects that have a quota or devices, by path. ``total``: devices of the fleet."""
        fair = self.fair_now(total)
        found: list[Usage] = []
        for path in sorted({*self.quotas, *self.used, *self.promised, *fair}):
            if path.endswith("/"):
                continue
            quota = self.quotas.get(path)
            due, limit = (quota.devices, quota.limit) if quota else (None, None)
            used, promised = self.used.get(path, 0.0), self.promised.get(path, 0.0)
            found.append(Usage(path, due, limit, used, promised, fair.get(path)))
        return found

    def _change(self, project: str) -> None:
        if self.quotas:
            for path in chain(project):
                (self.dirty if path in self.quotas else self.changed)[path] = None
