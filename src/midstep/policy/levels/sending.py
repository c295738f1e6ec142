"""The fleet sends jobs that wait in one region to another one, where devices are free that nobody there can
use: as `midstep.policy.spill` does where one process has all regions, but from summaries alone."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from midstep.policy.levels.fleet import choose_region
from midstep.policy.levels.region import choose_cluster
from midstep.policy.levels.summary import Board, Need, Summary

AT_ONCE = 32  # jobs that are sent at one moment


@dataclass(frozen=True, slots=True)
class Waiter:
    """A job that waits in ``region`` and may run elsewhere, with ``least`` devices. ``stranded``: never where
    it is; ``drained``: it runs, on this node, which it has to leave."""

    job_id: str
    region: str
    need: Need
    least: int
    waited_s: float
    stranded: bool = False
    drained: str = ""


@dataclass(frozen=True, slots=True)
class Sending:
    """A job that goes to another region, and why."""

    job_id: str
    here: str
    there: str
    devices: int
    free: int
    stranded: bool
    carried_s: float
    drained: str = ""

    def __str__(self) -> str:
        carried = f", {self.carried_s:.0f} s of transfer" if self.carried_s >= 1 else ""
        if self.drained:
            return f"{self.drained} is being drained; {self.free} devices are free in {self.there}{carried}"
        if self.stranded:
            return f"it could never run in {self.here}{carried}"
        return f"{self.free} devices are free in {self.there}{carried}; it waits for {self.devices} here"


def send(
    waiters: Iterable[Waiter],
    told: Mapping[str, Sequence[Summary]],
    far_bytes_per_s: float,
    patience_s: float,
    refused: Container[tuple[str, str]] = (),
) -> list[Sending]:
    """Of jobs in the order in which they go, those that are sent elsewhere now. One that could never run
    where it is goes at once; any other one to free devices, when it has waited ``patience_s``, and longer
    than to carry its snapshot there takes; one that has to leave its node does not wait. Where a guarantee
    must stand it does so there, too. ``refused``: job and region, which would not take it."""
    now = {region: list(summaries) for region, summaries in told.items()}
    found: list[Sending] = []
    for waiter in waiters:
        if len(found) >= AT_ONCE:
            break
        open_to = {region: have for region, have in now.items() if (waiter.job_id, region) not in refused}
        chosen = _receiver(waiter, open_to, far_bytes_per_s, patience_s)
        if chosen is None:
            continue
        carried_s = _carried_s(waiter.need, chosen, far_bytes_per_s)
        found.append(
            Sending(
                waiter.job_id,
                waiter.region,
                chosen.region,
                waiter.need.devices,
                chosen.free,
                waiter.stranded,
                carried_s,
                waiter.drained,
            )
        )
        now[chosen.region] = [
            _with(summary, waiter) if summary is chosen else summary for summary in now[chosen.region]
        ]
    return found


def _receiver(
    waiter: Waiter, told: Mapping[str, Sequence[Summary]], far_bytes_per_s: float, patience_s: float
) -> Summary | None:
    need, best = waiter.need, list[tuple[str, Summary]]()
    for region, summaries in sorted(told.items()):
        if region == waiter.region:
            continue
        board = Board()
        for summary in summaries:
            waits_s = max(patience_s, _carried_s(need, summary, far_bytes_per_s))
            now = (waiter.drained or waiter.waited_s >= waits_s) and _at_once(waiter, summary)
            if waiter.least <= summary.size and (waiter.stranded or now):
                board.put(summary)
        chosen = choose_cluster(need, board, lambda _: True)
        if chosen is None and waiter.stranded:  # better without its guarantee than never
            chosen = choose_cluster(replace(need, guaranteed=0.0), board, lambda _: True)
        if chosen is not None:
            best.append((region, chosen))
    return choose_region(need, best, far_bytes_per_s)


def _at_once(waiter: Waiter, summary: Summary) -> bool:
    """It would begin there at once, be it with fewer devices than it asks for."""
    return summary.free >= waiter.least and not summary.waiting


def _carried_s(need: Need, there: Summary, far_bytes_per_s: float) -> float:
    away = bool(need.data) and need.data != there.region
    return need.snapshot_bytes / far_bytes_per_s if away else 0.0


def _with(summary: Summary, waiter: Waiter) -> Summary:
    """What is left there."""
    taken = min(summary.free, waiter.need.devices)
    room, spot = summary.room - waiter.need.guaranteed, summary.room_spot - waiter.need.guaranteed
    left = waiter.need.devices - taken
    return replace(
        summary, free=summary.free - taken, room=room, room_spot=spot, waiting=summary.waiting + left
    )
