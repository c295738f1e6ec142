"""Why the scheduler did what it did: typed, and in words. Why a single placement fails: `reasons.py`."""

from __future__ import annotations

from dataclasses import dataclass

from midstep.model.tiers import Tier


@dataclass(frozen=True, slots=True)
class Free:
    """There were devices for it."""

    def __str__(self) -> str:
        return "devices were free"


@dataclass(frozen=True, slots=True)
class Owed:
    """Its tier's guarantee."""

    tier: Tier

    def __str__(self) -> str:
        return f"its tier is {self.tier}, which is guaranteed {self.tier.guarantee:.0%}"


@dataclass(frozen=True, slots=True)
class Due:
    """It has had less, or is more urgent, than those that gave way."""

    def __str__(self) -> str:
        return "it has had less, or is more urgent, than those that had the devices"


@dataclass(frozen=True, slots=True)
class Gave:
    """Another job needed the devices; ``cause`` says why that one got them."""

    to: str
    cause: Owed | Due

    def __str__(self) -> str:
        why = "its tier's guarantee" if isinstance(self.cause, Owed) else "it has had less, or is more urgent"
        return f"gave way to {self.to}: {why}"


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Its project had borrowed the devices; ``by``: the project that they belong to."""

    by: str

    def __str__(self) -> str:
        return f"its project had borrowed devices, which {self.by or 'another project'} needs back"


@dataclass(frozen=True, slots=True)
class Grown:
    """It ran on fewer devices than it asked for, and more became free."""

    def __str__(self) -> str:
        return "it ran on fewer devices than it asked for, and more became free"


@dataclass(frozen=True, slots=True)
class Drained:
    """Its node is being emptied."""

    node: str

    def __str__(self) -> str:
        return f"node {self.node} is being drained"


@dataclass(frozen=True, slots=True)
class NodeGone:
    """Its node left, or failed."""

    node: str

    def __str__(self) -> str:
        return f"node {self.node} is gone"


@dataclass(frozen=True, slots=True)
class MadeRoom:
    """Moved so that a larger job finds its devices together."""

    to: str

    def __str__(self) -> str:
        return f"moved to make room for {self.to}, which needs devices together"


Cause = Free | Owed | Due | Gave | Reclaimed | Grown | Drained | NodeGone | MadeRoom


@dataclass(frozen=True, slots=True)
class Behind:
    """Others that are more urgent, or have had less, go first. ``ahead``: how many wait before it, as far as
    they were counted."""

    asked: int
    free: int
    ahead: int

    def __str__(self) -> str:
        others = "1 job goes" if self.ahead == 1 else f"{self.ahead} jobs go"
        return f"waits for {_devices(self.asked)}: {self.free} free, and {others} first"


@dataclass(frozen=True, slots=True)
class NotTogether:
    """There are devices enough, but not together where its ranks that share files must be."""

    together: int
    largest: int

    def __str__(self) -> str:
        return (
            f"waits for {_devices(self.together)} together on a node: at most {self.largest} are free on one"
        )


@dataclass(frozen=True, slots=True)
class OverLimit:
    """Its project has as many devices as it may."""

    project: str
    limit: float

    def __str__(self) -> str:
        return f"project {self.project} has its limit of {self.limit:g} devices"


@dataclass(frozen=True, slots=True)
class NoneSuch:
    """No node of the fleet that is there now could ever run it."""

    asked: int
    most: int
    types: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = f" of type {'|'.join(self.types)}" if self.types else ""
        return f"asks for {_devices(self.asked)}{kind}; at most {self.most} of one type are in one cluster"


Waiting = Behind | NotTogether | OverLimit | NoneSuch


@dataclass(frozen=True, slots=True)
class NoGuarantee:
    """The guarantees that were given leave no room. ``left``: devices that a guarantee of that tier could
    stand on now, in the cluster that has the most; ``fits``: tiers that it could have."""

    tier: Tier
    asked: int
    left: int
    fits: tuple[Tier, ...] = (Tier.BASIC,)

    def __str__(self) -> str:
        tiers = " or ".join(self.fits)
        return (
            f"{self.tier} for {_devices(self.asked)} cannot be guaranteed beside those already given; "
            f"what fits: {self.tier} with {_devices(self.left)}, or {tiers} with {self.asked}"
        )


@dataclass(frozen=True, slots=True)
class NoQuota:
    """A guarantee may stand only on what its project is due."""

    tier: Tier
    project: str
    due: float
    used: float

    def __str__(self) -> str:
        return (
            f"{self.tier} needs devices that project {self.project} is due: {self.used:g} of {self.due:g} "
            "are promised already; what fits: basic"
        )


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Larger than anything that there is."""

    asked: int
    most: int
    types: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = f" of type {'|'.join(self.types)}" if self.types else ""
        return f"asks for {_devices(self.asked)}{kind}; the largest that could ever run has {self.most}"


Shortage = NoGuarantee | NoQuota | TooLarge


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
