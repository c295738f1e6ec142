"""The table of runs: what is in it, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from midstep.model.tiers import Tier
from midstep.sim.guarantees import Kept
from midstep.sim.metrics import Spread, Summary
from midstep.sim.sweep import Result
from midstep.sim.tables import Cell


@dataclass(frozen=True, slots=True)
class Column:
    """Of the table of runs."""

    name: str
    says: str
    value: Callable[[Summary], Cell]
    text: Callable[[Summary], str]


def in_time(value: float) -> str:
    """In the largest unit that leaves two of it."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} s"


def _spread(name: str, says: str, get: Callable[[Summary], Spread]) -> list[Column]:
    return [
        Column(
            f"{name}_mean_s",
            f"{says}, mean",
            lambda s: round(get(s).mean_s, 2),
            lambda s: in_time(get(s).mean_s),
        ),
        Column(
            f"{name}_p50_s",
            f"{says}, median",
            lambda s: round(get(s).p50_s, 2),
            lambda s: in_time(get(s).p50_s),
        ),
        Column(
            f"{name}_p95_s", f"{says}, p95", lambda s: round(get(s).p95_s, 2), lambda s: in_time(get(s).p95_s)
        ),
        Column(
            f"{name}_p99_s", f"{says}, p99", lambda s: round(get(s).p99_s, 2), lambda s: in_time(get(s).p99_s)
        ),
    ]


COLUMNS: tuple[Column, ...] = (
    Column("jobs", "jobs", lambda s: s.jobs, lambda s: f"{s.jobs:,}"),
    Column("refused", "refused", lambda s: s.refused, lambda s: f"{s.refused:,}"),
    *_spread("jct", "completion", lambda s: s.jct),
    *_spread("wait", "wait", lambda s: s.wait),
    Column("utilisation", "utilisation", lambda s: round(s.utilisation, 6), lambda s: f"{s.utilisation:.1%}"),
    Column(
        "idle_fit_h",
        "idle while a job that fits waits, device h",
        lambda s: round(s.idle_fit_h, 3),
        lambda s: f"{s.idle_fit_h:,.0f}",
    ),
    Column(
        "idle_fit_share",
        "of all",
        lambda s: round(s.idle_fit_share, 6),
        lambda s: f"{s.idle_fit_share:.2%}",
    ),
    Column("stops", "stops", lambda s: s.stops, lambda s: f"{s.stops:,}"),
    Column("moves", "moves", lambda s: s.moves, lambda s: f"{s.moves:,}"),
    Column("cuts", "cut by failures", lambda s: s.cuts, lambda s: f"{s.cuts:,}"),
    Column(
        "moves_per_job", "all a job", lambda s: round(s.moves_per_job, 6), lambda s: f"{s.moves_per_job:.2f}"
    ),
    Column(
        "lost_share", "device time lost", lambda s: round(s.lost_share, 6), lambda s: f"{s.lost_share:.2%}"
    ),
    Column("makespan_s", "until the last ended", lambda s: s.makespan_s, lambda s: in_time(s.makespan_s)),
    Column("cost", "cost", lambda s: round(s.cost, 2), lambda s: f"{s.cost:,.0f}"),
    Column(
        "useful_share",
        "of it useful",
        lambda s: round(s.useful_cost / s.cost if s.cost else 0.0, 6),
        lambda s: f"{s.useful_cost / s.cost if s.cost else 0.0:.1%}",
    ),
)


def run_table(results: Sequence[Result]) -> dict[str, list[Cell]]:
    """A row a run, for CSV and Parquet."""
    table: dict[str, list[Cell]] = {
        "policy": [result.case.policy for result in results],
        "placement": [result.case.placement for result in results],
        "load": [result.case.load for result in results],
        "seed": [result.case.seed for result in results],
        "offered_load": [round(result.offered, 6) for result in results],
    }
    for column in COLUMNS:
        table[column.name] = [column.value(result.summary) for result in results]
    for tier in Tier:
        for name, get in _WAITS:
            table[f"wait_{name}_s_{tier}"] = [round(get(r.summary.wait_by_tier[tier]), 2) for r in results]
        table[f"jct_mean_s_{tier}"] = [round(r.summary.jct_by_tier[tier].mean_s, 2) for r in results]
    for tier in (tier for tier in Tier if tier.guarantee):
        for name, value in KEPT:
            table[f"{name}_{tier}"] = [value(r.summary.kept[tier]) for r in results]
    return table


_WAITS: tuple[tuple[str, Callable[[Spread], float]], ...] = (
    ("p50", lambda spread: spread.p50_s),
    ("p95", lambda spread: spread.p95_s),
    ("p99", lambda spread: spread.p99_s),
)
KEPT: tuple[tuple[str, Callable[[Kept], Cell]], ...] = (
    ("guaranteed", lambda kept: kept.held),
    ("without_guarantee", lambda kept: kept.without),
    ("under_hour", lambda kept: kept.under_hour),
    ("under_hour_avoidable", lambda kept: kept.avoidable),
    ("under_life", lambda kept: kept.under_life),
    ("worst_hour", lambda kept: round(kept.worst_hour, 6)),
    ("worst_life", lambda kept: round(kept.worst_life, 6)),
    ("first_shortfall", lambda kept: kept.first),
)
