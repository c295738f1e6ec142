"""`python -m benchmarks [NAME ...]`: run them one after another, print each figure beside its bar, write
build/bench.json.

Exit status 0: every figure holds its bar (or was skipped); 1: one does not, or its function failed; 2: no
such benchmark. With names given, the other figures already in build/bench.json stay there.
"""

from __future__ import annotations

import json
import statistics
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.registry import Benchmark, Skip, choose, collect

RESULTS = Path(__file__).resolve().parent.parent / "build" / "bench.json"
Row = dict[str, Any]  # name, value, unit, against, bar, holds, runs; and `note` where there is no value


def run_one(item: Benchmark) -> Row:
    row: Row = {"name": item.name, "value": None, "unit": item.unit, "against": item.against, "bar": item.bar}
    try:
        runs = item.measure()
        value = statistics.median(runs)
    except Skip as why:
        return {**row, "holds": None, "runs": [], "note": f"skipped: {why}"}
    except Exception as error:
        traceback.print_exc()
        return {**row, "holds": False, "runs": [], "note": f"failed: {error!r}"}
    return {**row, "value": value, "holds": item.holds(value), "runs": runs}


def show(item: Benchmark, row: Row) -> str:
    if row["value"] is None:
        return f"{item.name:<28} {row['note']}"
    sign = "<=" if item.better == "lower" else ">="
    verdict = "holds" if row["holds"] else "DOES NOT HOLD"
    spread = f"{min(row['runs']):.4g} to {max(row['runs']):.4g}, {len(row['runs'])} runs"
    figure = f"{row['value']:.4g} {item.unit}"
    held = f"bar {sign} {item.bar:g}: {verdict}; {spread}; against: {item.against}"
    return f"{item.name:<28} {figure:>14}  ({held})"


def save(rows: list[Row]) -> None:
    """Replace the rows of these names in the file, keep the others."""
    old: list[Row] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    merged = {row["name"]: row for row in [*old, *rows]}
    RESULTS.parent.mkdir(exist_ok=True)
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps([merged[name] for name in sorted(merged)], indent=2) + "\n")
    part.replace(RESULTS)


def main(wanted: list[str]) -> int:
    try:
        chosen = choose(collect(), wanted)
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for item in chosen:
        print(f"bench: {item.name} ...", file=sys.stderr, flush=True)
        rows.append(run_one(item))
        print(show(item, rows[-1]), flush=True)
        save(rows)
    if not rows:
        print("bench: no benchmarks registered")
    return 0 if all(row["holds"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
