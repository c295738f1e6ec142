"""Projects: what each is due, has, and has been promised. A path "team/sub" counts for "team", too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from midstep.policy.asks import Quota


@dataclass(frozen=True, slots=True)
class Usage:
    """A project: devices that it is due (None: no quota), has, and has been promised."""

    project: str
    due: float | None
    limit: float | None
    used: float
    promised: float


def ancestors(project: str) -> list[str]:
    """The path and those above it, the highest first: "a/b" -> "a", "a/b"."""
    parts = project.split("/") if project else []
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


class Projects:
    """``dirty``: paths with a quota whose use has changed since this was last emptied."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self.quotas = dict(quotas)
        self.used: dict[str, float] = {}
        self.promised: dict[str, float] = {}
        self.dirty: dict[str, None] = {}

    def use(self, project: str, devices: float) -> None:
        """So many more (or fewer)."""
        for path in ancestors(project):
            self.used[path] = self.used.get(path, 0.0) + devices
            if path in self.quotas:
                self.dirty[path] = None

    def promise(self, project: str, devices: float) -> None:
        """So many more (or fewer) that guarantees stand on."""
        for path in ancestors(project):
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

    def usage(self) -> list[Usage]:
        """All projects that have a quota or devices, by path."""
        found: list[Usage] = []
        for path in sorted({*self.quotas, *self.used, *self.promised}):
            quota = self.quotas.get(path)
            due, limit = (quota.devices, quota.limit) if quota else (None, None)
            found.append(Usage(path, due, limit, self.used.get(path, 0.0), self.promised.get(path, 0.0)))
        return found
