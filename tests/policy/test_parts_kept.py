"""Guarantees for parts of devices, and beside them, are kept: who has none makes room, who has one moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from midstep.policy.asks import Grant
from midstep.policy.causes import MadeRoom
from midstep.policy.plan import Plan, Resize, Suspend
from tests.policy.world import BASIC, PREMIUM, STANDARD, World

FEW, MANY = 60, 20_000
DEVICES = 2  # of a node


class Watched(World):
    """Keeps books of its own: what an action gives is free when its turn comes."""

    def __init__(self, nodes: int) -> None:
        self.had: dict[str, Grant] = {}
        self.log: list[str] = []
        super().__init__(nodes, DEVICES)

    def decide(self) -> Plan:
        for action in super().decide().actions:
            self.log.append(repr(action))
            assert (action.job_id in self.had) == isinstance(action, Resize | Suspend)
            if isinstance(action, Suspend):
                del self.had[action.job_id]
            else:
                self.had[action.job_id] = action.grant
                self.no_device_is_given_beyond_one()
        return self.plan

    def ends(self, name: str) -> Plan:
        self.had.pop(name, None)
        return super().ends(name)

    def no_device_is_given_beyond_one(self) -> None:
        parts: dict[tuple[str, int], int] = {}
        used: dict[str, int] = {}
        for grant in self.had.values():
            (node,) = grant.nodes
            key = (node, grant.slot)
            if grant.slot < 0 or key not in parts:
                used[node] = used.get(node, 0) + 1
            if grant.slot >= 0:
                parts[key] = parts.get(key, 0) + grant.milli
        assert max(parts.values(), default=0) <= 1000 and max(used.values()) <= DEVICES

    def nothing_idles(self) -> None:
        (cluster,) = self.scheduler.clusters.values()
        (floor,) = cluster.floors.values()
        left = max([1000 * bool(floor.pool.free), *floor.pool.parts().values()])
        for job in self.scheduler.jobs.values():
            assert job.runs or job.ask.milli > left, f"{job.ask} would fit"

    def what_is_promised_runs(self) -> None:
        waits = [job.ask for job in self.scheduler.jobs.values() if job.tier.guarantee and not job.runs]
        assert not waits


def play(nodes: int, story: list[tuple[Any, ...]]) -> Watched:
    world = Watched(nodes)
    for number, event in enumerate(story):
        match event:
            case ("submit", int(milli), tier):
                world.submit(f"j{number}", tier=tier, milli=milli, or_basic=True)
            case ("end", int(which)) if world.scheduler.jobs:
                names = sorted(world.scheduler.jobs)
                world.ends(names[which % len(names)])
            case ("later", int(seconds)):
                world.later(seconds)
            case _:
                pass
        world.what_is_promised_runs()
        world.nothing_idles()
    world.later(300)
    world.what_is_promised_runs()
    world.nothing_idles()
    return world


sizes = st.sampled_from([1000, 900, 600, 500, 500, 400, 300, 250, 250, 200, 125, 100])
submits = st.tuples(st.just("submit"), sizes, st.sampled_from([PREMIUM, PREMIUM, STANDARD, BASIC]))
events = st.one_of(
    submits,
    submits,
    st.tuples(st.just("end"), st.integers(0, 30)),
    st.tuples(st.just("later"), st.sampled_from([1, 61, 400, 7200])),
)
stories = st.lists(events, max_size=40)


@settings(max_examples=FEW, deadline=None)
@given(st.integers(1, 3), stories)
def test_what_is_promised_runs_after_every_event(nodes: int, story: list[Any]) -> None:
    play(nodes, story)


@pytest.mark.soak
@settings(max_examples=MANY, deadline=None)
@given(st.integers(1, 4), st.lists(events, max_size=80))
def test_what_is_promised_runs_after_every_event_often(nodes: int, story: list[Any]) -> None:
    assert play(nodes, story).log == play(nodes, story).log
