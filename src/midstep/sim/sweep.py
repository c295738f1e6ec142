"""Many runs: policies, placements, loads, seeds; each by itself, in as many processes as there are cores."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from midstep.sim.catalogue import prepare
from midstep.sim.core import Progress
from midstep.sim.costs import STATED, Costs
from midstep.sim.failures import Failures
from midstep.sim.fleet import Fleet, offered_load
from midstep.sim.metrics import Curves, Summary, figures, job_table
from midstep.sim.tables import Cell
from midstep.sim.trace import Trace, under_load


@dataclass(frozen=True, slots=True)
class Case:
    """One run. Its name leaves out what all cases share (`labels`)."""

    policy: str
    placement: str = "consolidate"
    load: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Setting:
    """What all cases share: costs as measured or stated, nodes that fail or do not."""

    costs: Costs = STATED
    failures: Failures | None = None


PLAIN = Setting()


@dataclass(frozen=True, slots=True)
class Result:
    """``offered``: device time asked for / there is, while jobs are submitted. ``refused``: why -> how many
    jobs. ``jobs``: the table of jobs, if wanted."""

    case: Case
    offered: float
    summary: Summary
    curves: Curves
    refused: dict[str, int]
    jobs: dict[str, list[Cell]]


def cases(
    policies: Sequence[str], placements: Sequence[str], loads: Sequence[float], seeds: Sequence[int]
) -> list[Case]:
    """Each with each."""
    return [Case(*chosen) for chosen in itertools.product(policies, placements, loads, seeds)]


def labels(chosen: Sequence[Case]) -> list[str]:
    """A short name for each."""
    parts: list[list[str]] = [[case.policy] for case in chosen]
    for field, words in (("placement", "{}"), ("load", "load {:g}"), ("seed", "seed {}")):
        if len({getattr(case, field) for case in chosen}) > 1:
            for part, case in zip(parts, chosen):
                part.append(words.format(getattr(case, field)))
    return [", ".join(part) for part in parts]


def run_case(
    trace: Trace,
    fleet: Fleet,
    case: Case,
    want_jobs: bool = False,
    progress: Progress | None = None,
    setting: Setting = PLAIN,
) -> Result:
    """One run, from beginning to end."""
    loaded = under_load(trace, case.load)
    terms = (setting.costs, setting.failures)
    core = prepare(fleet, loaded, case.policy, case.placement, case.seed, *terms)
    outcome = core.run(progress)
    core.check()
    refused: dict[str, int] = {}
    for record in outcome.records:
        if record.refused:
            refused[record.refused] = refused.get(record.refused, 0) + 1
    table = job_table(outcome) if want_jobs else {}
    return Result(case, offered_load(fleet, loaded), *figures(outcome), refused, table)


def run_cases(
    trace: Trace,
    fleet: Fleet,
    chosen: Sequence[Case],
    workers: int = 1,
    want_jobs: bool = False,
    progress: Callable[[Case], Progress] | None = None,
    setting: Setting = PLAIN,
) -> Iterator[Result]:
    """In the order of the cases, each as soon as it is there. With one worker, or one case, in this process;
    only then ``progress`` is told how far a case is."""
    if workers <= 1 or len(chosen) <= 1:
        for case in chosen:
            yield run_case(trace, fleet, case, want_jobs, progress(case) if progress else None, setting)
        return
    # Started afresh, not forked: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(chosen)), context, initializer=_begin, initargs=(trace, fleet, want_jobs, setting)
    ) as pool:
        yield from pool.map(_run, chosen)


# Of a worker: sent once, not with every case.
_given: tuple[Trace, Fleet, bool, Setting] | None = None


def _begin(trace: Trace, fleet: Fleet, want_jobs: bool, setting: Setting) -> None:
    global _given
    _given = (trace, fleet, want_jobs, setting)


def _run(case: Case) -> Result:
    assert _given is not None
    trace, fleet, want_jobs, setting = _given
    return run_case(trace, fleet, case, want_jobs, setting=setting)
