"""What a snapshot consists of: parts, one a node, and the manifest that names them; as records and as
JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One node's share of a snapshot. ``frozen`` is the freeze driver's record of each rank, as JSON."""

    index: int
    ranks: tuple[int, ...]
    homes: tuple[int, ...]
    nbytes: int
    files: dict[str, int]  # path below the snapshot -> size: what commit verifies
    frozen: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Manifest:
    """A committed snapshot: the job at one cut. ``store``: key -> base64 value of the rendezvous store;
    ``job``: how the job was started, in its controller's words, for one that knows nothing of it ({}: an
    older version wrote it)."""

    snapshot_id: str
    job_id: str
    epoch: int
    parts: tuple[Part, ...]
    store: dict[str, str]
    format: int = FORMAT
    job: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    @property
    def order(self) -> tuple[int, tuple[float, ...]]:
        """Of two snapshots of a job the newer one has the greater: by epoch, then the checkpoints of one
        epoch (`j-5.1`, `j-5.2`) before the cut that ended it (`j-5`). Clocks may jump."""
        words = self.snapshot_id.rpartition("-")[2].split(".")
        numbers = tuple(float(word) if word.isdecimal() else 0.0 for word in words)
        return (self.epoch, numbers if len(words) > 1 else (*numbers, math.inf))

    @property
    def trees(self) -> tuple[str, ...]:
        """The names of its folders: `rank-R` and `home-K`, each once."""
        ranks = sorted({rank for part in self.parts for rank in part.ranks})
        homes = sorted({home for part in self.parts for home in part.homes})
        return (*(f"rank-{rank}" for rank in ranks), *(f"home-{home}" for home in homes))


def part_of(raw: Mapping[str, Any]) -> Part:
    """From JSON. TypeError, KeyError: it is no part."""
    values: dict[str, Any] = {
        key: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        for key, value in raw.items()
    }
    return Part(**values)


def manifest_of(raw: Mapping[str, Any]) -> Manifest:
    """From JSON. TypeError, KeyError: it is no manifest."""
    parts = tuple(part_of(part) for part in raw["parts"])
    names = (raw["snapshot_id"], raw["job_id"], raw["epoch"])
    return Manifest(*names, parts, raw["store"], raw["format"], raw.get("job", {}))
