"""The store: what each request means, what a file keeps, what a second asking does."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstep.mailbox.requests import Ask, pack
from midstep.proxy.store import Store


class Asker:
    """Asks a store as one mailbox does."""

    def __init__(self, store: Store, uid: int = 1) -> None:
        self.store, self.uid, self.stamp = store, uid, 0

    def __call__(self, ask: Ask, *parts: bytes) -> bytes | None:
        self.stamp += 1
        return self.store.ask(self.uid, self.stamp, self.stamp, pack(ask, parts))

    def again(self, ask: Ask, *parts: bytes) -> bytes | None:
        return self.store.ask(self.uid, self.stamp, self.stamp, pack(ask, parts))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), {})


def test_what_requests_mean(store: Store) -> None:
    ask = Asker(store)
    assert ask(Ask.SET, b"a", b"1") == b""
    assert ask(Ask.GET, b"a") == b"1"
    assert ask(Ask.ADD, b"a", b"41") == b"42"
    assert ask(Ask.APPEND, b"a", b"0") == b""
    assert ask(Ask.GET, b"a") == b"420"
    assert ask(Ask.CHECK, b"a", b"b") == b"0"
    assert ask(Ask.COUNT, b"a") == b"1"
    assert ask(Ask.DELETE, b"a") == b"1"
    assert ask(Ask.DELETE, b"a") == b"0"


def test_compare_and_set_is_torchs(store: Store) -> None:
    ask = Asker(store)
    assert ask(Ask.COMPARE_SET, b"k", b"x", b"y") == b"x"
    assert ask(Ask.CHECK, b"k") == b"0"
    assert ask(Ask.COMPARE_SET, b"k", b"", b"y") == b"y"
    assert ask(Ask.COMPARE_SET, b"k", b"x", b"z") == b"y"
    assert ask(Ask.COMPARE_SET, b"k", b"y", b"z") == b"z"


def test_a_wait_ends_when_its_last_key_comes(store: Store) -> None:
    first, second = Asker(store), Asker(store, 2)
    assert first(Ask.WAIT, b"a", b"b") is None
    second(Ask.SET, b"a", b"1")
    assert store.settled == []
    second(Ask.SET, b"b", b"1")
    assert store.settled == [((1, 1), b"")]


def test_a_request_that_is_asked_again_is_not_done_again(store: Store) -> None:
    ask = Asker(store)
    assert ask(Ask.ADD, b"n", b"5") == b"5"
    assert ask.again(Ask.ADD, b"n", b"5") == b"5"
    assert Asker(store, 2)(Ask.ADD, b"n", b"0") == b"5"


def test_a_killed_leader_loses_nothing(tmp_path: Path, store: Store) -> None:
    ask = Asker(store)
    for k in range(20):
        ask(Ask.ADD, b"n", b"%d" % k)
    with open(tmp_path / "store", "ab") as file:
        file.write(b"\x20\x00\x00\x00torn")
    ask.store = Store(str(tmp_path / "store"), {})
    assert ask.again(Ask.ADD, b"n", b"19") == b"190"
    assert ask(Ask.ADD, b"n", b"0") == b"190"
    assert Asker(Store(str(tmp_path / "store"), {}), 3)(Ask.GET, b"n") == b"190"


def test_a_snapshot_carries_content_and_replies(tmp_path: Path, store: Store) -> None:
    ask = Asker(store)
    ask(Ask.SET, b"\xff\x00", b"\xfe")
    ask(Ask.ADD, b"n", b"7")
    ask.store = Store(str(tmp_path / "other"), store.content())
    assert ask.again(Ask.ADD, b"n", b"7") == b"7"
    assert ask(Ask.GET, b"\xff\x00") == b"\xfe"


def test_nonsense_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="cut short"):
        store.ask(1, 1, 1, b"x")
