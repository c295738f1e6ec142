"""The documented form of a trace (docs/replay-a-trace.md): one row a job. What is wrong is said with row and
column, up to ten of it at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from midstep.model.tiers import Tier
from midstep.sim.errors import TraceError
from midstep.sim.tables import Cell, Table
from midstep.sim.trace import MILLI, Job, Trace, in_order

REQUIRED = ("job_id", "submit_s", "duration_s", "gpus")
OPTIONAL = (
    "gpu_type",
    "user",
    "group",
    "cluster",
    "status",
    "cpu",
    "mem_gib",
    "tier",
    "estimate_s",
    "spot_ok",
)
SHOWN = 10  # problems
YEARS_10_S, MANY_DEVICES = 10 * 366 * 86400, 1_000_000
MANY_CPUS, MUCH_GIB = 10_000_000, 100_000_000
HINT = "docs/replay-a-trace.md describes traces"


@dataclass(slots=True)
class Problems:
    """Collected, so that all are seen at once."""

    table: Table
    said: list[str] = field(default_factory=list[str])
    count: int = 0

    def add(self, row: int, column: str, what: str) -> None:
        """One more."""
        self.count += 1
        if len(self.said) < SHOWN:
            self.said.append(f"{self.table.where(row, column)}: {what}")

    def raise_any(self) -> None:
        """TraceError, if there are any."""
        if self.count:
            more = [f"and {self.count - len(self.said)} more"] if self.count > len(self.said) else []
            raise TraceError("\n  ".join([*self.said, *more]), HINT)


def is_ours(table: Table) -> bool:
    """It has the columns, or most of them, so that what is missing can be named."""
    return sum(name in table.columns for name in REQUIRED) >= 2 or "submit_s" in table.columns


def read(table: Table, name: str) -> Trace:
    """TraceError: whatever is wrong with it."""
    missing = [column for column in REQUIRED if column not in table.columns]
    if missing:
        raise TraceError(
            f"{table.path}: there is no column {', '.join(missing)}; it has {', '.join(table.columns)}", HINT
        )
    if not table.rows:
        raise TraceError(f"{table.path}: there are no jobs in it", HINT)
    problems = Problems(table)
    submit = _whole(table, "submit_s", problems, YEARS_10_S)
    duration = _whole(table, "duration_s", problems, YEARS_10_S)
    size = [_size(row, value, problems) for row, value in enumerate(_numbers(table, "gpus", problems))]
    estimate = _whole(table, "estimate_s", problems, YEARS_10_S, required=False)
    cpus = _amounts(table, "cpu", problems, MANY_CPUS)
    memory = _amounts(table, "mem_gib", problems, MUCH_GIB)
    spot_ok = [_yes(row, value, problems) for row, value in enumerate(_texts(table, "spot_ok"))]
    tiers = [_tier(row, value, problems) for row, value in enumerate(_texts(table, "tier"))]
    texts = {column: _texts(table, column) for column in ("user", "group", "cluster", "status", "gpu_type")}
    ids = _texts(table, "job_id")
    _unique(ids, texts["cluster"], problems)
    problems.raise_any()
    jobs = [
        Job(
            index=row,
            job_id=ids[row],
            submit_s=submit[row],
            duration_s=duration[row],
            devices=size[row][0],
            milli=size[row][1],
            device_types=types_of(texts["gpu_type"][row]),
            cluster=texts["cluster"][row],
            group=texts["group"][row],
            user=texts["user"][row],
            status=texts["status"][row],
            cpus=cpus[row],
            mem_gib=memory[row],
            tier=tiers[row],
            estimate_s=estimate[row],
            spot_ok=spot_ok[row],
        )
        for row in range(table.rows)
    ]
    return Trace(name, in_order(jobs), has_tiers="tier" in table.columns)


def types_of(text: str) -> tuple[str, ...]:
    """``A|B``: one of these, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split("|") if part.strip()))


def _texts(table: Table, column: str) -> list[str]:
    return ["" if v is None else str(v) for v in table.columns.get(column, [None] * table.rows)]


def _numbers(table: Table, column: str, problems: Problems, required: bool = True) -> list[float]:
    cells: Sequence[Cell] = table.columns.get(column, [None] * table.rows)
    return [_number(row, column, cell, problems, required) for row, cell in enumerate(cells)]


def _number(row: int, column: str, cell: Cell, problems: Problems, required: bool) -> float:
    if cell is None or cell == "":
        if required:
            problems.add(row, column, "there is no value; expected a number of 0 or more")
        return 0.0
    try:
        value = float(cell)
    except ValueError:
        problems.add(row, column, f"expected a number of 0 or more, got {cell!r}")
        return 0.0
    if not math.isfinite(value) or value < 0:
        problems.add(row, column, f"expected a number of 0 or more, got {cell}")
        return 0.0
    return value


def _amounts(table: Table, column: str, problems: Problems, most: int) -> list[float]:
    found = _numbers(table, column, problems, required=False)
    for row, value in enumerate(found):
        if value > most:
            problems.add(row, column, f"expected at most {most}, got {value:g}")
    return found


def _whole(table: Table, column: str, problems: Problems, most: int, required: bool = True) -> list[int]:
    found: list[int] = []
    for row, value in enumerate(_numbers(table, column, problems, required)):
        if value != int(value):
            problems.add(row, column, f"expected whole seconds, got {value}")
        elif value > most:
            problems.add(row, column, f"expected at most {most} s (ten years), got {int(value)}")
        found.append(int(value))
    return found


def _size(row: int, value: float, problems: Problems) -> tuple[int, int]:
    """Devices, and how much of each."""
    if value > MANY_DEVICES:
        problems.add(row, "gpus", f"expected at most {MANY_DEVICES}, got {value:g}")
    elif value > 1 and value != int(value):
        problems.add(row, "gpus", f"expected whole devices, or less than one, got {value:g}")
    elif 0 < value < 1:
        return 1, max(1, round(value * MILLI))
    return int(value), MILLI


def _tier(row: int, text: str, problems: Problems) -> Tier:
    if not text:
        return Tier.STANDARD
    try:
        return Tier(text)
    except ValueError:
        problems.add(row, "tier", f"expected one of {', '.join(Tier)}, got {text!r}")
        return Tier.STANDARD


def _yes(row: int, text: str, problems: Problems) -> bool:
    if text.lower() in ("", "0", "false", "no"):
        return False
    if text.lower() not in ("1", "true", "yes"):
        problems.add(row, "spot_ok", f"expected yes or no, got {text!r}")
    return True


def _unique(ids: Sequence[str], clusters: Sequence[str], problems: Problems) -> None:
    seen: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(clusters, ids)):
        if not key[1]:
            problems.add(row, "job_id", "there is no value; expected a name")
        elif key in seen:
            problems.add(row, "job_id", f"{key[1]!r} is there already, in row {seen[key] + 1}")
        seen.setdefault(key, row)
