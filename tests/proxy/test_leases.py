"""Whose turn it is, decided on made-up ranks in made-up time: whatever the scripts wait for, all of them end.

A rank's program is a list of (kind, milliseconds): work; a sleep; a collective; a barrier by files, looked
for asleep or spinning. All ranks have the same barriers, with work of their own in between.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstep.mailbox.seat import ANY, Seating, note, read_note
from midstep.proxy.leases import Turns
from midstep.proxy.places import Do, Phase
from midstep.proxy.sharers import seatings

STEP_S = 0.001
Program = list[tuple[str, int]]


@dataclass
class Rank:
    program: Program
    at: int = 0
    left: int = 0
    cpu: int = 0
    arrived: int = 0  # barriers and collectives reached
    gated: bool = True
    lowered: bool = False
    told: bool = False

    @property
    def kind(self) -> str:
        return self.program[self.at][0] if self.at < len(self.program) else "end"


@dataclass
class World:
    """Ranks that run as a kernel on one processor would let them."""

    ranks: list[Rank]
    now: int = 0
    computing: list[int] = field(default_factory=list)
    together: int = 0  # milliseconds in which two ranks computed

    def __post_init__(self) -> None:
        self.turns = Turns(self)

    # What Turns sees.

    def cpu_s(self, rank: int) -> float:
        return self.ranks[rank].cpu * STEP_S

    def asleep(self, rank: int, all_threads: bool) -> bool:
        return not self._wants(self.ranks[rank])

    def _wants(self, rank: Rank) -> bool:
        return rank.kind in ("work", "spin") or (rank.kind == "sync" and not rank.told)

    def run(self, limit: int) -> None:
        for number in range(len(self.ranks)):
            self.turns.join(number, self.now * STEP_S)
        while any(rank.kind != "end" for rank in self.ranks):
            assert self.now < limit, [
                (r.kind, r.at, self.turns.places[n].phase) for n, r in enumerate(self.ranks)
            ]
            self._obey()
            self._tick()

    def _obey(self) -> None:
        while True:
            orders = self.turns.orders()
            for order in orders:
                rank = self.ranks[order.rank]
                if order.do in (Do.GRANT, Do.OPEN, Do.WITHHOLD):
                    rank.gated = order.do == Do.WITHHOLD
                elif order.do in (Do.LOWER, Do.RAISE):
                    rank.lowered = order.do == Do.LOWER
            if not orders:
                break
        holding = [place for place in self.turns.places.values() if place.phase == Phase.HOLDING]
        assert holding == ([self.turns.holder] if self.turns.holder else [])

    def _tick(self) -> None:
        self.now += 1
        now_s = self.now * STEP_S
        willing = [rank for rank in self.ranks if self._wants(rank)]
        running = [rank for rank in willing if not rank.lowered] or willing
        self.together += len(running) > 1
        chosen = running[self.now % len(running)] if running else None
        for number, rank in enumerate(self.ranks):
            self._advance(number, rank, rank is chosen, now_s)
        if now_s >= self.turns.look_at_s:
            self.turns.look(now_s)

    def _advance(self, number: int, rank: Rank, runs: bool, now_s: float) -> None:
        kind = rank.kind
        rank.cpu += runs
        if kind == "end":
            if number in self.turns.places:
                self.turns.leave(number, now_s)
        elif kind == "work" or kind == "sleep":
            if runs or kind == "sleep":
                rank.left = (rank.left or rank.program[rank.at][1]) - 1
                if rank.left == 0:
                    rank.at += 1
        elif kind == "sync":
            self._sync(number, rank, runs, now_s)
        else:
            self._arrive(rank)
            if self._complete(rank) and (runs or kind == "poll"):
                rank.at, rank.told = rank.at + 1, False

    def _sync(self, number: int, rank: Rank, runs: bool, now_s: float) -> None:
        if not rank.told and runs:
            self._arrive(rank)
            if not self._complete(rank) and self.turns.places[number].phase != Phase.READY:
                self.turns.gave_up(number, now_s)
        if rank.told and self._complete(rank):
            self.turns.ready([number], now_s)
            self._obey()
            if not rank.gated:
                rank.at, rank.told = rank.at + 1, False

    def _arrive(self, rank: Rank) -> None:
        if not rank.told:
            rank.told = True
            rank.arrived += 1

    def _complete(self, rank: Rank) -> bool:
        return all(other.arrived >= rank.arrived for other in self.ranks)


def program(seed: int, number: int, barriers: list[str]) -> Program:
    chance = random.Random(seed * 100 + number)
    found: Program = []
    for kind in barriers:
        for _ in range(chance.randrange(3)):
            found.append((chance.choice(["work", "work", "sleep"]), chance.choice([1, 5, 20, 300])))
        found.append((kind, 0))
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 1 << 20),
    st.integers(2, 5),
    st.lists(st.sampled_from(["sync", "poll", "spin"]), max_size=8),
)
def test_every_program_ends(seed: int, size: int, barriers: list[str]) -> None:
    world = World([Rank(program(seed, number, barriers)) for number in range(size)])
    work = sum(time for rank in world.ranks for _, time in rank.program)
    world.run(limit=1000 + work + len(barriers) * size * 20_000)


def test_ranks_that_only_compute_and_post_never_compute_together() -> None:
    """And the device changes hands once less in a step than it has ranks: who posts last goes on."""
    steps: Program = [("work", 20), ("sync", 0)] * 50
    world = World([Rank(list(steps)) for _ in range(3)])
    world.run(limit=50 * 60 + 500)
    turns = sum(place.turns for place in world.turns.places.values())
    assert world.now <= 50 * (60 + 4) and turns <= 50 * 2 + 10  # a hand-over takes a tick here
    assert world.together <= 60


def test_a_spinning_rank_is_taken_off_ever_sooner() -> None:
    steps: Program = [("work", 20), ("spin", 0), ("sync", 0)] * 60
    world = World([Rank(list(steps)) for _ in range(2)])
    world.run(limit=120_000)
    late = max(place.taken_running for place in world.turns.places.values())
    assert late < 8 and world.now < 60 * 40 + 40_000


def test_who_sleeps_more_than_turns_are_worth_ends_them_for_a_while() -> None:
    steps: Program = [("sleep", 10), ("work", 1), ("sync", 0)] * 2000
    world = World([Rank(list(steps)) for _ in range(2)])
    world.run(limit=60_000)
    assert world.now < 2000 * 13 * 1.2


def test_notes_are_no_slots() -> None:
    assert read_note(2047) is None
    assert read_note(note(5)) == (False, 5)
    assert read_note(note(ANY)) == (False, ANY)
    assert read_note(note(None, want=True)) == (True, None)


@pytest.mark.parametrize(
    ("devices", "shared"),
    [
        ({0: (0,), 1: (1,)}, {0: (0,), 1: (1,)}),
        ({0: (0,), 1: (0,), 2: (1,)}, {0: (0, 1), 1: (0, 1), 2: (2,)}),
        ({0: (0, 1), 1: (1, 2), 2: (3,), 3: (2,)}, {0: (0, 1, 3), 1: (0, 1, 3), 2: (2,), 3: (0, 1, 3)}),
        ({0: (), 1: ()}, {}),
    ],
)
def test_ranks_with_a_device_in_common_share(
    devices: dict[int, tuple[int, ...]], shared: dict[int, tuple[int, ...]]
) -> None:
    seats = seatings(7, devices)
    assert {rank: seat.ranks for rank, seat in seats.items()} == shared
    assert all(isinstance(seat, Seating) and seat.epoch == 7 for seat in seats.values())
