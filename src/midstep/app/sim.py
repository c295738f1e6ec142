"""What `midstep sim` becomes: ``python -m midstep.app.sim JSON``."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from midstep.cli.exits import UsageError, guarded
from midstep.cli.output import columns, duration, print_json, print_table, say
from midstep.sim.catalogue import PLACEMENTS, POLICIES, known
from midstep.sim.columns import run_table
from midstep.sim.core import Progress
from midstep.sim.costs import STATED, read_costs
from midstep.sim.errors import TraceError
from midstep.sim.failures import NEVER_H, Failures
from midstep.sim.fleet import Fleet
from midstep.sim.fleetfile import read_fleet
from midstep.sim.formats import read_trace
from midstep.sim.report import html
from midstep.sim.sweep import Case, Result, Setting, cases, labels, run_cases
from midstep.sim.tables import write_csv, write_parquet
from midstep.sim.trace import Trace, between, in_order

Tell = Callable[[int, int, str], None]  # runs done, jobs done of the next one, the name of the run


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the command line says; see `midstep sim --help`."""

    trace: str
    fleet: str
    policies: list[str]
    placements: list[str]
    loads: list[float]
    seeds: list[int]
    report: str | None
    tables: str | None
    cluster: str | None
    group: str | None
    from_s: int | None
    until_s: int | None
    any_type: bool
    workers: int | None
    as_json: bool
    calibration: str | None = None
    mtbf_hours: float | None = None
    repair_hours: float | None = None
    failure_shape: float | None = None


def main(argv: Sequence[str]) -> int:
    """Read, run, write. SimError, UsageError: what is wrong with what was given."""
    chosen = Chosen(**json.loads(argv[0]))
    check(chosen)
    fleet, trace = read_fleet(Path(chosen.fleet)), narrowed(read_trace(Path(chosen.trace)), chosen)
    for note in trace.notes:
        say(f"{chosen.trace}: {note}")
    runs = cases(chosen.policies, chosen.placements, chosen.loads, chosen.seeds)
    results = run_all(trace, fleet, runs, chosen, setting(chosen, fleet))
    if chosen.report:
        write_text(Path(chosen.report), html(trace, fleet, results))
    if chosen.tables:
        write_tables(Path(chosen.tables), results)
    show(chosen, results)
    return 0


def check(chosen: Chosen) -> None:
    """Before anything is read: names and numbers; that the files can be written."""
    for name in chosen.policies:
        known(name, POLICIES, "policy")
    for name in chosen.placements:
        known(name, PLACEMENTS, "placement")
    for load in chosen.loads:
        if not 0.01 <= load <= 100:
            raise UsageError(f"--load {load:g}: expected a number from 0.01 to 100")
    if chosen.report and not Path(chosen.report).absolute().parent.is_dir():
        raise UsageError(f"--report {chosen.report}: there is no folder {Path(chosen.report).parent}")


def narrowed(trace: Trace, chosen: Chosen) -> Trace:
    """Only the jobs that were asked for. TraceError: none."""
    jobs = [
        replace(job, device_types=()) if chosen.any_type else job
        for job in between(trace, chosen.from_s, chosen.until_s).jobs
        if chosen.cluster in (None, job.cluster) and chosen.group in (None, job.group)
    ]
    if not jobs:
        found = ", ".join(sorted({job.cluster or "(none)" for job in trace.jobs})[:20])
        raise TraceError(f"{chosen.trace}: no job is left of {len(trace.jobs)}", f"its clusters: {found}")
    return replace(trace, jobs=in_order(jobs))


def setting(chosen: Chosen, fleet: Fleet) -> Setting:
    """Costs and failures; the command line's word goes before that of FLEET.yaml. UsageError: half of it."""
    costs = read_costs(Path(chosen.calibration)) if chosen.calibration else STATED
    failures, given = fleet.failures, chosen.mtbf_hours
    if given is None and (failures is None or failures.mtbf_h == NEVER_H):
        if chosen.repair_hours is not None or chosen.failure_shape is not None:
            raise UsageError(
                "--repair-hours and --failure-shape need --mtbf-hours, or `failures` in the fleet"
            )
        return Setting(costs, failures)
    failures = failures or Failures()
    return Setting(
        costs,
        replace(
            failures,
            mtbf_h=failures.mtbf_h if given is None else given,
            repair_h=failures.repair_h if chosen.repair_hours is None else chosen.repair_hours,
            shape=failures.shape if chosen.failure_shape is None else chosen.failure_shape,
        ),
    )


def run_all(
    trace: Trace, fleet: Fleet, runs: Sequence[Case], chosen: Chosen, setting: Setting
) -> list[Result]:
    """With a bar on a terminal."""
    workers = min(chosen.workers or os.cpu_count() or 1, len(runs))
    names = dict(zip(runs, labels(runs)))
    with bar(len(runs), len(trace.jobs) if workers == 1 else 0) as tell:
        results: list[Result] = []

        def progress(case: Case) -> Progress:
            return lambda done, of: tell(len(results), done, names[case])

        for result in run_cases(trace, fleet, runs, workers, bool(chosen.tables), progress, setting):
            results.append(result)
            tell(len(results), 0, names[result.case])
        return results


@contextmanager
def bar(runs: int, jobs: int) -> Generator[Tell]:
    """``jobs``: of a run; 0: only whole runs are told."""
    if not sys.stderr.isatty():
        yield lambda done, part, name: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    each = max(1, jobs)
    with Bar(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("simulating", total=runs * each)

        def tell(done: int, part: int, name: str) -> None:
            shown.update(task, completed=done * each + (part if jobs else 0), description=name)

        yield tell


def write_tables(folder: Path, results: Sequence[Result]) -> None:
    """runs.csv, runs.parquet, and for each run jobs-NAME.csv and .parquet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {"runs": run_table(results)}
        for name, result in zip(labels([result.case for result in results]), results):
            found[f"jobs-{re.sub('[^a-z0-9.]+', '-', name)}"] = result.jobs
        for name, table in found.items():
            write_csv(folder / f"{name}.csv", table)
            write_parquet(folder / f"{name}.parquet", table)
    except OSError as error:
        raise UsageError(f"--tables {folder}: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> None:
    """UsageError: not there."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None


def show(chosen: Chosen, results: Sequence[Result]) -> None:
    """A row a run; what was not admitted beside it."""
    if chosen.as_json:
        table = run_table(results)
        print_json([{name: cells[row] for name, cells in table.items()} for row in range(len(results))])
        return
    times = (">JCT", ">Wait", ">Wait p99")
    heads = columns("Run", ">Jobs", *times, ">Used", ">Idle", ">Under", ">Stops", ">Lost", ">Refused")
    rows: list[tuple[str, ...]] = []
    names = labels([result.case for result in results])
    for name, result in zip(names, results):
        it = result.summary
        spans = (duration(it.jct.mean_s), duration(it.wait.mean_s), duration(it.wait.p99_s))
        under = "/".join(str(kept.under_hour) for kept in it.kept.values())
        stops, lost = str(it.stops + it.moves + it.cuts), f"{it.lost_share:.2%}"
        shares = (f"{it.utilisation:.1%}", f"{it.idle_fit_share:.2%}", under, stops, lost)
        rows.append((name, str(it.jobs), *spans, *shares, str(it.refused)))
    print_table(heads, rows)
    for name, result in zip(names, results):
        for tier, kept in result.summary.kept.items():
            if kept.first:
                say(f"{name}: first {tier} job under its guarantee: {kept.first}")
    for why, count in sorted(results[0].refused.items(), key=lambda item: (-item[1], item[0]))[:10]:
        say(f"not admitted: {count} {'job' if count == 1 else 'jobs'}: {why}")
    if chosen.report:
        say(f"report: {chosen.report}")


if __name__ == "__main__":
    guarded(lambda: main(sys.argv[1:]))
