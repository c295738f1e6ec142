"""What it costs to stop, move and resume a job: stated, or measured (a calibration file, as `make bench
ONLY=calibration` writes it).

    machine: 2 cores, ...        # whatever describes where it was measured
    suspend_s: 0.9               # all fields may be left out; then the stated ones hold
    splice: {2: 1.03, 4: 1.05}   # ranks a device -> time of a step over as many single ones
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from midstep.sim.errors import CostsError
from midstep.sim.yamlfile import Reader, amount, compose, text

HINT = "docs/replay-a-trace.md describes calibration files"
MOST_S = 86400.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that a job makes no progress, whatever it holds meanwhile. ``suspend_s``: from the cut until
    its devices are free; ``resume_s``: from having devices until it goes on; ``resize_within_s``: other
    devices, or another number of them, with no rank changing its node; ``resize_across_s``: with some that
    do; a move to other nodes is the same. ``start_s``: what a job needs beside its work, from having devices
    to the first step and from the last one until they are free again, ``start_device_s``: more of it for each
    device; the core adds both to every first start, no policy does. ``checkpoint_s``: the pause of a
    checkpoint. ``splice``: time of a step with several ranks a device over as many single ones;
    ``splice_by_ranks``: the same where it was measured, by ranks a device. ``state_bytes``: of a job's
    snapshot, a device; with the links' rates that is what `transfer_s` counts with."""

    suspend_s: float = 10.0
    resume_s: float = 15.0
    resize_within_s: float = 2.0
    resize_across_s: float = 25.0
    start_s: float = 0.0
    start_device_s: float = 0.0
    checkpoint_s: float = 2.0
    splice: float = 1.03
    splice_by_ranks: Mapping[int, float] = field(default_factory=dict[int, float])
    state_bytes: float = 20e9
    node_bytes_per_s: float = 1.25e9  # between nodes of a region
    region_bytes_per_s: float = 1.25e8  # between regions
    machine: str = "as stated, not measured"

    def spliced(self, ranks: int) -> float:
        """Time of a step with so many ranks a device over as many single ones; 1 with one rank."""
        if ranks <= 1:
            return 1.0
        known = [n for n in sorted(self.splice_by_ranks) if n >= ranks] or sorted(self.splice_by_ranks)[-1:]
        return self.splice_by_ranks[known[0]] if known else self.splice

    def begin_s(self, devices: float) -> int:
        """What the first start of a job adds, in whole seconds."""
        return round(self.start_s + self.start_device_s * devices)

    def transfer_s(self, devices: float, regions: bool) -> float:
        """Of a job's snapshot to another node of the region, or to another region. Every device's part goes
        by a line of its own within a region, and all by one between them."""
        if regions:
            return devices * self.state_bytes / self.region_bytes_per_s
        return self.state_bytes / self.node_bytes_per_s


STATED = Costs()
_SECONDS = (
    "suspend_s",
    "resume_s",
    "resize_within_s",
    "resize_across_s",
    "start_s",
    "start_device_s",
    "checkpoint_s",
)
_RATES = ("node_bytes_per_s", "region_bytes_per_s", "state_bytes")
FIELDS = (*_SECONDS, "splice", *_RATES, "machine")


def read_costs(path: Path) -> Costs:
    """CostsError: everything that is wrong with it, with line and column."""
    reader = Reader(path)
    root = compose(path, CostsError, HINT, "costs")
    fields = reader.fields(root, FIELDS, "a calibration")
    given: dict[str, Any] = {}
    for name in _SECONDS:
        given[name] = reader.value(fields, name, amount(MOST_S), getattr(STATED, name))
    for name in _RATES:
        given[name] = reader.value(fields, name, amount(1e15, 1.0), getattr(STATED, name))
    given["machine"] = reader.value(fields, "machine", text, f"as in {path.name}")
    given |= _splice(reader, fields)
    if reader.problems:
        raise CostsError("\n  ".join(reader.problems), HINT)
    return Costs(**given)


def _splice(reader: Reader, fields: Mapping[str, Any]) -> dict[str, Any]:
    """One factor, or one by ranks a device."""
    node = fields.get("splice")
    if not isinstance(node, yaml.MappingNode):
        return {"splice": reader.value(fields, "splice", amount(100.0, 1.0), STATED.splice)}
    found: dict[int, float] = {}
    for key, value in reader.fields(node, (), "splice").items():
        factor = reader.value({key: value}, key, amount(100.0, 1.0), 1.0)
        if not key.isdecimal() or not 2 <= int(key) <= 64:
            reader.say(value, f"splice: expected ranks a device, from 2 to 64, got {key!r}")
        else:
            found[int(key)] = factor
    return {"splice_by_ranks": found}
