"""Jobs in a line, held against a list that is looked through."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from midstep.model.tiers import Tier
from midstep.policy.asks import Ask
from midstep.policy.ledger import Job
from midstep.policy.projects.line import Line, Turn

JOBS = [Job(Ask(f"j{n}", 1), Tier.BASIC, float(n)) for n in range(600)]
put = st.tuples(st.integers(0, 599), st.integers(0, 40), st.integers(0, 5), st.booleans())


@given(st.lists(put, max_size=1500), st.integers(-1, 4000), st.integers(0, 40), st.integers(0, 41))
def test_as_if_everybody_was_looked_at(
    steps: list[tuple[int, int, int, bool]], amount: int, a: int, b: int
) -> None:
    line, there = Line(), dict[int, tuple[Turn, int]]()
    for number, at, size, leaves in steps:
        if leaves:
            line.remove(JOBS[number])
            there.pop(number, None)
        else:
            turn: Turn = (False, 0, False, float(at), JOBS[number].ask.job_id)
            line.put(JOBS[number], turn, size)
            there[number] = (turn, size)
    order = sorted((turn, size, number) for number, (turn, size) in there.items())
    sums = accumulate(size for _, size, _ in order)
    expected = next((turn for (turn, _, _), used in zip(order, sums) if used > amount), None)
    assert (len(line), line.reach(amount)) == (len(order), expected)
    one, other = (False, 0, False, float(a), ""), (False, 0, False, float(b), "") if b <= 40 else None
    first, last = (one, other) if other is None else (min(one, other), max(one, other))
    found = [JOBS[n] for turn, _, n in order if turn >= first and (last is None or turn < last)]
    assert list(line.between(one, other)) == list(line.between(other, one)) == found
    assert [line.turn(JOBS[n]) for _, _, n in order] == [turn for turn, _, _ in order]
