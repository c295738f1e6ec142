"""What ends an operation in a rank, apart from any mailbox."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("torch")


def test_who_comes_while_a_result_is_put_in_place_waits_until_it_is() -> None:
    """The thread of the mailbox may land a result for somebody's future just when the job waits for it."""
    from midstep.mailbox.tickets import Finished
    from midstep.runtime.work import OpWork

    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def finish() -> None:
        begun.set()
        go_on.wait(10)
        order.append("in place")

    work = OpWork((Finished(),), 10.0, [], finish)
    first = threading.Thread(target=work.wait)
    first.start()
    begun.wait(10)

    def second() -> None:
        work.wait()
        order.append("used")

    other = threading.Thread(target=second)
    other.start()
    other.join(0.2)
    go_on.set()
    first.join(10)
    other.join(10)
    assert order == ["in place", "used"]
