"""What jobs receive of what they ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstep.control.scheduling.fractions import HOUR_S, Account, Rates, lost_since_s, rates_of
from midstep.engine.events import Freed, ResizeAsked, SuspendAsked
from midstep.engine.facets import Saves
from tests.engine.play import Play


def test_waiting_counts_as_nothing_received() -> None:
    account = Account(0.0)
    account.change(Rates(4, 0), 0.0)
    account.change(Rates(4, 2), 100.0)
    view = account.view(200.0, 0.7)
    assert (view.asked_s, view.received_s) == (800.0, 200.0)
    assert view.hour == view.life == 0.25
    assert view.short_s == pytest.approx(0.7 * 800 - 200)


def test_the_hour_slides_and_the_life_does_not() -> None:
    account = Account(0.0)
    account.change(Rates(1, 0), 0.0)
    account.change(Rates(1, 1), 1800.0)
    view = account.view(1800.0 + HOUR_S, 0.95)
    assert view.hour == 1.0 and view.short_s == 0
    assert view.life == pytest.approx(HOUR_S / (HOUR_S + 1800))


def test_time_that_is_not_owed_counts_for_nothing() -> None:
    account = Account(0.0)
    account.change(Rates(1, 1), 0.0)
    account.change(Rates(), 10.0)
    account.change(Rates(1, 1), 1000.0)
    assert account.view(1010.0, 0.0).hour == 1.0
    assert account.view(1010.0, 0.0).asked_s == 20.0


def test_what_was_lost_was_not_received() -> None:
    account = Account(0.0)
    account.change(Rates(2, 2), 0.0)
    account.lose(60.0, 100.0)
    view = account.view(100.0, 0.0)
    assert view.received_s == pytest.approx(120.0) and view.asked_s == 200.0


@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=600)
)
def test_however_many_spans_the_hour_is_what_was_counted(changes: list[tuple[float, int, int]]) -> None:
    """Joined spans lose detail in time, never device time: the sums over all that was within an hour hold."""
    account, now_s, asked = Account(0.0), 0.0, 0.0
    for length_s, owed, received in changes:
        account.change(Rates(owed, received), now_s)
        now_s += length_s
        asked += owed * length_s
    account.count(now_s)
    assert account.asked_s == pytest.approx(asked)
    if now_s <= HOUR_S:
        assert account.hour(now_s)[0] == pytest.approx(asked)
    assert len(account.spans) <= 241


def test_a_job_is_owed_what_its_user_wants() -> None:
    play = Play(world_size=2)
    assert rates_of(play.record) == Rates(2, 0)
    play.runs("a", "b")
    assert rates_of(play.record) == Rates(2, 2)
    assert rates_of(play.happens(ResizeAsked(1)).record) == Rates(1, 2)
    assert rates_of(play.happens(Freed()).record) == Rates(2, 2)
    assert rates_of(play.happens(SuspendAsked()).record) == Rates()


def test_losses_are_seen_in_the_record() -> None:
    from dataclasses import replace

    record = Play().runs("a").record
    saved = replace(record, saves=Saves(since_s=1001.5))
    assert lost_since_s(saved, replace(saved, version=9)) is None
    assert lost_since_s(saved, replace(saved, losses=1)) == 1001.5
    assert lost_since_s(None, record) is None
