"""HOLD on a node that keeps some homes of a job while others leave it, or come to it: a resize.

All of the job stands still at one cut; the homes that change their node are in its snapshot, the others only
here. The record names what stays before anything else is touched: what is here beside that, a rank half
restored or one not yet ended, is found on the machine and removed, by this agent or the next one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

from midstep.agent.drivers.cell import Home, unmount_home
from midstep.agent.drivers.launch import RankProcess
from midstep.agent.orphans import find_orphans
from midstep.agent.steps.arrive import Arrival, restore
from midstep.agent.steps.base import Job, blocking
from midstep.agent.steps.end import homes_here, kill_ranks, stop_proxy
from midstep.agent.steps.hold import adapt
from midstep.model.job import NodePlace, RankPlace
from midstep.model.phase import Phase
from midstep.wire.agent import Assignment


async def change(job: Job, wanted: Assignment) -> None:
    """From the cut to HELD, with the homes of the new place. StepFailed: those that stay are here, stopped,
    and no others."""
    assert wanted.source is not None, "a change of homes begins at a cut"
    known = list(job.entry.processes.values())
    _keep(job, wanted)
    await stop_proxy(job)
    await remove_strangers(job, known)
    try:
        here = set(job.entry.ranks)
        places = [place for place in wanted.place.ranks if place.rank not in here]
        arrival = await restore(job, wanted.source, places, _say_nothing) if places else Arrival()
        _take(job, wanted.place, arrival)
        await adapt(job, wanted)
    except BaseException:
        _keep(job, wanted)
        await stop_proxy(job)
        await remove_strangers(job, ())
        raise
    job.save(phase=Phase.HELD, adopted=False, coming=(), steps=tuple(job.steps))


async def remove_strangers(job: Job, known: tuple[RankProcess, ...] | list[RankProcess]) -> None:
    """End and remove what is here of homes that the record does not name. ``known``: processes that may be
    theirs, beside those that are found."""
    staying = {job.home(number).path for number in job.entry.homes}
    strangers = [home for home in homes_here(job) if home not in staying]
    if not strangers:
        return
    ranks = [p for p in known if p.rank not in job.entry.ranks]
    found = await blocking(partial(find_orphans, strangers, [*job.entry.processes.values(), *ranks]))
    await kill_ranks([*ranks, *found])
    for home in strangers:
        await blocking(partial(unmount_home, Home(home)))
        await blocking(partial(job.means.journal.trash.take, home))


def _keep(job: Job, wanted: Assignment) -> None:
    """The record of what stays, at the devices that it will have."""
    entry = job.entry
    homes = {place.home for place in wanted.place.ranks}
    before = {place.rank for place in entry.place.ranks if place.home in homes and _is_here(job, place)}
    place = replace(wanted.place, ranks=tuple(r for r in wanted.place.ranks if r.rank in before))
    coming = tuple(r.rank for r in wanted.place.ranks if r.rank not in before)
    job.save(
        epoch=wanted.epoch, phase=Phase.HOLDING, adopted=True, spec=wanted.spec, place=place, steps=(),
        coming=coming,
        failure=None, tried=None, target=None, store={}, nbytes=0,
        processes={r: p for r, p in entry.processes.items() if r in before},
        exits={r: code for r, code in entry.exits.items() if r in before},
        cuda={r: left for r, left in entry.cuda.items() if r in before},
        log_floors={r: size for r, size in entry.log_floors.items() if r in before},
    )  # fmt: skip


def _take(job: Job, place: NodePlace, arrival: Arrival) -> None:
    """Into the record with those that have come, all of them at once."""
    entry = job.entry
    found = entry.frozen.get("stopped_before")
    stopped = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    job.save(
        place=place,
        processes={**entry.processes, **arrival.processes},
        exits={**entry.exits, **arrival.exits},
        cuda={**entry.cuda, **arrival.cuda},
        log_floors={**entry.log_floors, **arrival.floors},
        frozen={"stopped_before": {**stopped, **arrival.stopped}, "duration_s": 0.0},
    )


def _is_here(job: Job, place: RankPlace) -> bool:
    return place.rank in job.entry.processes or place.rank in job.entry.exits


async def _say_nothing(_: Arrival) -> None:
    """Until all of them are here, the record does not name them."""
