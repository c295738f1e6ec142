"""The report: one HTML file with everything in it. The same runs give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from midstep.sim.charts import Chart, svg
from midstep.sim.fleet import Fleet
from midstep.sim.metrics import Spread, Summary
from midstep.sim.sweep import Result, labels
from midstep.sim.tables import Cell
from midstep.sim.trace import Trace

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
.charts { display: flex; flex-wrap: wrap; gap: 1rem } svg { max-width: 100%; height: auto }
.note { color: #666 }
"""


@dataclass(frozen=True, slots=True)
class Column:
    """Of the table of runs."""

    name: str
    says: str
    value: Callable[[Summary], Cell]
    text: Callable[[Summary], str]


def _time(value: float) -> str:
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
            lambda s: _time(get(s).mean_s),
        ),
        Column(
            f"{name}_p50_s",
            f"{says}, median",
            lambda s: round(get(s).p50_s, 2),
            lambda s: _time(get(s).p50_s),
        ),
        Column(
            f"{name}_p99_s", f"{says}, p99", lambda s: round(get(s).p99_s, 2), lambda s: _time(get(s).p99_s)
        ),
    ]


COLUMNS: tuple[Column, ...] = (
    Column("jobs", "jobs", lambda s: s.jobs, lambda s: f"{s.jobs:,}"),
    Column("refused", "refused", lambda s: s.refused, lambda s: f"{s.refused:,}"),
    *_spread("jct", "completion", lambda s: s.jct),
    *_spread("wait", "wait", lambda s: s.wait),
    Column("utilisation", "utilisation", lambda s: round(s.utilisation, 6), lambda s: f"{s.utilisation:.1%}"),
    Column(
        "idle_waiting_h",
        "idle while as much was waited for, device h",
        lambda s: round(s.idle_waiting_h, 3),
        lambda s: f"{s.idle_waiting_h:,.0f}",
    ),
    Column("stops", "stops", lambda s: s.stops, lambda s: f"{s.stops:,}"),
    Column("moves", "moves", lambda s: s.moves, lambda s: f"{s.moves:,}"),
    Column(
        "lost_share", "device time lost", lambda s: round(s.lost_share, 6), lambda s: f"{s.lost_share:.2%}"
    ),
    Column("makespan_s", "until the last ended", lambda s: s.makespan_s, lambda s: _time(s.makespan_s)),
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
    for tier in ("premium", "standard", "basic"):
        table[f"wait_p99_s_{tier}"] = [round(r.summary.wait_by_tier[tier].p99_s, 2) for r in results]
        table[f"jct_mean_s_{tier}"] = [round(r.summary.jct_by_tier[tier].mean_s, 2) for r in results]
    for tier in ("premium", "standard"):
        table[f"kept_{tier}"] = [round(r.summary.kept_by_tier[tier], 6) for r in results]
    return table


def html(trace: Trace, fleet: Fleet, results: Sequence[Result]) -> str:
    """The whole page."""
    names = labels([result.case for result in results])
    money = "in the prices of the fleet" if fleet.prices else "in device hours"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>Midstep: {escape(trace.name)}</title><style>{STYLE}</style>",
        f"<h1>{escape(trace.name)}</h1>",
        f"<p>{len(trace.jobs):,} jobs on {fleet.devices:,} devices, {len(fleet.nodes):,} nodes, "
        f"{len(fleet.clusters)} clusters. Offered load: {escape(_offered(names, results))}. "
        f"Cost is {money}.</p>",
        *(f"<p class=note>{escape(note)}</p>" for note in trace.notes),
        "<h2>Runs</h2>",
        _table(["", *(c.says for c in COLUMNS)], [[n, *_cells(r.summary)] for n, r in zip(names, results)]),
        "<h2>Tiers</h2>",
        _tiers(names, results),
        "<div class=charts>",
        *(f"<figure>{svg(chart)}</figure>" for chart in _charts(fleet, names, results)),
        "</div>",
        _refused(names, results),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _offered(names: Sequence[str], results: Sequence[Result]) -> str:
    found = {result.offered: name for name, result in zip(names, results)}
    if len(found) == 1:
        return f"{results[0].offered:.2f}"
    return "; ".join(f"{result.offered:.2f} ({name})" for name, result in zip(names, results))


def _cells(summary: Summary) -> list[str]:
    return [column.text(summary) for column in COLUMNS]


def _tiers(names: Sequence[str], results: Sequence[Result]) -> str:
    head = ["", "tier", "jobs", "completion, mean", "wait, mean", "wait, p99", "had its GPU fraction"]
    rows: list[list[str]] = []
    for name, result in zip(names, results):
        for tier, wait in result.summary.wait_by_tier.items():
            kept = result.summary.kept_by_tier.get(tier)
            jct = result.summary.jct_by_tier[tier]
            rows.append(
                [
                    name,
                    tier,
                    f"{wait.count:,}",
                    _time(jct.mean_s),
                    _time(wait.mean_s),
                    _time(wait.p99_s),
                    "" if kept is None else f"{kept:.1%}",
                ]
            )
    return _table(head, rows)


def _charts(fleet: Fleet, names: Sequence[str], results: Sequence[Result]) -> list[Chart]:
    runs = list(zip(names, (result.curves for result in results)))
    found = [
        Chart(
            "Devices in use", "hours", "devices", {n: (c.hours, c.used) for n, c in runs}, steps=True,
            level=fleet.devices,
        ),
        Chart(
            "Devices waited for", "hours", "devices", {n: (c.hours, c.waited_for) for n, c in runs},
            steps=True,
        ),
        Chart(
            "Completion: share of jobs", "seconds from submission to end", "share",
            {n: (c.jct_s, c.shares) for n, c in runs if c.jct_s}, log=True,
        ),
    ]  # fmt: skip
    for name, curves in runs:
        lines = {tier: (waits, curves.shares) for tier, waits in curves.wait_s.items() if waits}
        found.append(Chart(f"Wait by tier: {name}", "seconds without devices", "share", lines, log=True))
    return found


def _refused(names: Sequence[str], results: Sequence[Result]) -> str:
    rows = [
        [name, why, f"{count:,}"]
        for name, result in zip(names, results)
        for why, count in sorted(result.refused.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f"<h2>Not admitted</h2>{_table(['', 'why', 'jobs'], rows)}" if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>\n" for row in rows)
    return f"<table><tr>{top}</tr>\n{body}</table>"
