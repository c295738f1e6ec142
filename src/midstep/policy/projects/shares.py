"""Fair shares: what nobody is due, projects get in proportion to their weights, and what one does not want
the others get; within each, its sub-projects alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from midstep.policy.asks import Quota


@dataclass(frozen=True, slots=True)
class Claim:
    """One of those that share. ``base``: what it is due, as far as it wants it; it may be given ``wants``."""

    path: str
    base: float
    wants: float
    weight: float


@lru_cache(4096)
def chain(project: str) -> tuple[str, ...]:
    """The project and those above it, the highest first; then what is in none of its sub-projects ("a/")."""
    parts = project.split("/") if project else []
    return (*("/".join(parts[: n + 1]) for n in range(len(parts))), f"{project}/")


def parent(path: str) -> str:
    """The one above it; "": none."""
    return path.rpartition("/")[0]


def fair_shares(
    total: float, quotas: Mapping[str, Quota], wants: Mapping[str, float], promised: Mapping[str, float]
) -> dict[str, float]:
    """Of so many devices, what is fair for each path that wants some: what it is due or promised at least."""
    members: dict[str, list[Claim]] = {}
    for path, wanted in sorted(wants.items()):
        quota = quotas.get(path, Quota(0.0))
        wanted = wanted if quota.limit is None else min(wanted, quota.limit)
        base = min(max(quota.devices, promised.get(path, 0.0)), wanted)
        members.setdefault(parent(path), []).append(Claim(path, base, wanted, quota.weight))
    found: dict[str, float] = {}
    open_paths = [("", total)]
    while open_paths:
        path, devices = open_paths.pop()
        for one, share in divide(devices, members.get(path, [])).items():
            found[one] = share
            open_paths.append((one, share))
    return found


def divide(total: float, claims: list[Claim]) -> dict[str, float]:
    """Everybody's base, and of the rest as much as each wants, as far as its weight goes."""
    left = max(0.0, total - sum(claim.base for claim in claims))
    weights = sum(claim.weight for claim in claims)
    found: dict[str, float] = {}
    for claim in sorted(claims, key=lambda claim: ((claim.wants - claim.base) / claim.weight, claim.path)):
        more = min(claim.wants - claim.base, left * claim.weight / weights)
        found[claim.path] = claim.base + more
        left -= more
        weights -= claim.weight
    return found
