"""The report: one HTML file with everything in it. The same runs give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from midstep.sim.charts import Chart, svg
from midstep.sim.columns import COLUMNS, in_time
from midstep.sim.fleet import Fleet
from midstep.sim.metrics import Summary
from midstep.sim.sweep import Result, labels
from midstep.sim.trace import Trace

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
.charts { display: flex; flex-wrap: wrap; gap: 1rem } svg { max-width: 100%; height: auto }
.note { color: #666 }
"""


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
        "<p class=note>In any hour a job may lack 5 % of it (premium) or 30 % (standard), counted from "
        "submission to end; avoidably: although all that was guaranteed then fitted.</p>",
        _tiers(names, results),
        _shortfalls(names, results),
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
    waits = ["wait, median", "wait, p95", "wait, p99"]
    head = ["", "tier", "jobs", "completion, mean", "wait, mean", *waits]
    head += ["with guarantee", "under it in an hour", "avoidably", "worst hour", "under it over life"]
    rows: list[list[str]] = []
    for name, result in zip(names, results):
        for tier, wait in result.summary.wait_by_tier.items():
            jct, kept = result.summary.jct_by_tier[tier], result.summary.kept.get(tier)
            times = (jct.mean_s, wait.mean_s, wait.p50_s, wait.p95_s, wait.p99_s)
            row: list[str] = [name, tier, f"{wait.count:,}", *(in_time(value) for value in times)]
            if kept is not None:
                counts = (kept.held, kept.under_hour, kept.avoidable)
                row += [*(f"{n:,}" for n in counts), f"{kept.worst_hour:.1%}", f"{kept.under_life:,}"]
            rows.append(row + [""] * (len(head) - len(row)))
    return _table(head, rows)


def _shortfalls(names: Sequence[str], results: Sequence[Result]) -> str:
    rows = [
        [name, tier, kept.first]
        for name, result in zip(names, results)
        for tier, kept in result.summary.kept.items()
        if kept.first
    ]
    return f"<h2>First shortfall</h2>{_table(['', 'tier', 'cause'], rows)}" if rows else ""


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
            "Stops and moves", "hours", "an hour", {n: (c.hours, c.disturbed) for n, c in runs}, steps=True
        ),
        Chart(
            "Completion: share of jobs", "seconds from submission to end", "share",
            {n: (c.jct_s, c.shares) for n, c in runs if c.jct_s}, log=True,
        ),
    ]  # fmt: skip
    for name, curves in runs:
        lines = {tier: (waits, curves.shares) for tier, waits in curves.wait_s.items() if waits}
        found.append(Chart(f"Wait by tier: {name}", "seconds without devices", "share", lines, log=True))
        under = {tier: (curves.hours, counts) for tier, counts in curves.under.items()}
        found.append(Chart(f"Under their guarantee: {name}", "hours", "jobs", under, steps=True))
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
