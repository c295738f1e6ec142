"""How often and how long a backend that does not answer is asked again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from midstep.vault.backends.base import Backend, Buffer
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.backends.retrying import Retrying
from midstep.vault.errors import BackendDenied, BackendUnreachable, ObjectExists, ObjectMissing
from tests.vault.backends.kit import JumpingClock, chance


class Failing(MemoryBackend):
    """Creates and gets fail as told, in order; a creation may have happened all the same."""

    def __init__(
        self, clock: JumpingClock, errors: list[Exception], *, arrives: bool = False, took_s: float = 0
    ):
        super().__init__()
        self.clock, self.errors, self.arrives, self.took_s, self.asked = clock, errors, arrives, took_s, 0

    def create(self, name: str, data: Buffer) -> None:
        self.fail_or(lambda: MemoryBackend.create(self, name, data))

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self.asked += 1
        self.clock.passed_s += self.took_s
        if self.errors:
            raise self.errors.pop(0)
        return super().get(name, start, length)

    def fail_or(self, action: Callable[[], None]) -> None:
        self.asked += 1
        if self.errors:
            if self.arrives:
                action()
            raise self.errors.pop(0)
        action()


def away(times: int) -> list[Exception]:
    return [BackendUnreachable(f"away {number}") for number in range(times)]


def over(inner: Backend, clock: JumpingClock, **settings: float) -> Retrying:
    return Retrying(inner, clock=clock, chance=chance(), **settings)  # pyright: ignore[reportArgumentType]


def test_waits_double_with_jitter_up_to_a_bound() -> None:
    clock = JumpingClock()
    inner = Failing(clock, away(11))
    inner.put("a", b"x")
    assert over(inner, clock, tries=12, first_s=0.2, longest_s=5.0).get("a") == b"x"
    bounds = [min(5.0, 0.2 * 2**turn) for turn in range(11)]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(clock.waits_s, bounds, strict=True))
    assert len({wait / bound for wait, bound in zip(clock.waits_s, bounds, strict=True)}) == 11


def test_the_last_error_says_how_often() -> None:
    clock = JumpingClock()
    inner = Failing(clock, away(99))
    with pytest.raises(BackendUnreachable, match=r"away 4 \(tried 5 times in \d+\.\d s\)"):
        over(inner, clock, tries=5).get("a")
    assert (inner.asked, len(clock.waits_s)) == (5, 4)


def test_patience_ends_before_tries_do() -> None:
    clock = JumpingClock()
    inner = Failing(clock, away(99), took_s=40)
    with pytest.raises(BackendUnreachable, match="tried 3 times in 12"):
        over(inner, clock, tries=50, patience_s=100.0).get("a")


@pytest.mark.parametrize(
    "error", [BackendDenied("no"), ObjectMissing("none"), ValueError("bad"), KeyError("ours")]
)
def test_other_errors_are_not_tried_again(error: Exception) -> None:
    clock = JumpingClock()
    inner = Failing(clock, [error])
    inner.put("a", b"x")
    with pytest.raises(type(error)):
        over(inner, clock).get("a")
    assert (inner.asked, clock.waits_s) == (1, [])


def test_a_creation_that_arrived_counts() -> None:
    clock = JumpingClock()
    inner = Failing(clock, away(1), arrives=True)
    over(inner, clock).create("fence", b"mine")
    assert inner.get("fence") == b"mine"


def test_a_creation_that_somebody_else_won_does_not() -> None:
    clock = JumpingClock()
    inner = Failing(clock, away(1))
    inner.put("fence", b"theirs")
    with pytest.raises(ObjectExists):
        over(inner, clock).create("fence", b"mine")
    assert inner.get("fence") == b"theirs"


def test_a_fence_that_is_gone_when_it_is_looked_at() -> None:
    clock = JumpingClock()
    inner = Failing(clock, [*away(1), ObjectExists("taken"), ObjectMissing("gone")])
    with pytest.raises(ObjectExists):
        over(inner, clock).create("fence", b"mine")
