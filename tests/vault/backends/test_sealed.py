"""Encryption: nothing readable is stored, nothing altered is read, and the wrong key is told as such."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midstep.vault.backends.base import Backend
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.backends.open import open_backend
from midstep.vault.backends.seal import HEADER_BYTES, SEGMENT_BYTES, TAG_BYTES, Cipher, Seal, plain_size
from midstep.vault.backends.sealed import MARKER, Sealed, open_sealed
from midstep.vault.errors import (
    BackendError,
    FormatUnknown,
    ObjectDamaged,
    ObjectExists,
    ObjectTorn,
    WrongKey,
)
from tests.vault.backends.kit import KEY, ids, noise

OTHER = bytes(reversed(KEY))
STEP = SEGMENT_BYTES + TAG_BYTES


class Counting(MemoryBackend):
    """Counts the bytes that are read, and requests."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.requests = 0, 0

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        found = super().get(name, start, length)
        self.read, self.requests = self.read + len(found), self.requests + 1
        return found


def pair() -> tuple[Counting, Backend]:
    inner = Counting()
    return inner, open_sealed(inner, KEY, ids())


def test_nothing_readable_is_stored() -> None:
    inner, sealed = pair()
    text = b"weights of the model " * 10_000
    sealed.put("a", text)
    assert b"weights" not in inner.get("a")
    assert sealed.get("a") == text


def test_equal_objects_do_not_look_equal() -> None:
    inner, sealed = pair()
    sealed.put("a", bytes(1000))
    sealed.put("b", bytes(1000))
    first = inner.get("a")
    sealed.put("a", bytes(1000))
    bodies = {stored[HEADER_BYTES:] for stored in (first, inner.get("a"), inner.get("b"))}
    assert len(bodies) == 3


def test_the_format_stays() -> None:
    """An object of format 1, as written by the first version: key, salt, name and content are given."""
    sealed = Cipher(KEY).seal("packs/a", b"content", bytes(16))
    assert sealed.hex() == (
        "4d535345414c000143a43787cc345c0e0000000000000000000000000000000000000000000000076514c591cd0b354b802da1c09d321b2401ff61b79ec52e"
    )
    inner = MemoryBackend()
    inner.put("packs/a", sealed)
    assert Sealed(inner, KEY).get("packs/a") == b"content"


@given(st.integers(0, 5 * SEGMENT_BYTES))
def test_sizes_are_known_without_reading(size: int) -> None:
    seal = Seal(bytes(8), bytes(16), size)
    assert plain_size(seal.sealed_bytes) == size


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranges_are_those_of_the_plain_object(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 3 * SEGMENT_BYTES + 5))
    start = data.draw(st.integers(0, size))
    length = data.draw(st.none() | st.integers(0, size - start))
    _, sealed = pair()
    sealed.put("a", noise(size))
    expected = noise(size)[start : None if length is None else start + length]
    assert sealed.get("a", start, length) == expected


def test_a_range_reads_its_segments_only_and_in_one_request() -> None:
    inner, sealed = pair()
    sealed.put("a", noise(40 * SEGMENT_BYTES))
    sealed.get("a", 0, 1)
    inner.read = inner.requests = 0
    assert (
        sealed.get("a", 20 * SEGMENT_BYTES + 7, 1000)
        == noise(40 * SEGMENT_BYTES)[20 * SEGMENT_BYTES + 7 :][:1000]
    )
    assert (inner.read, inner.requests) == (STEP, 1)


@pytest.mark.parametrize("size", [0, 10, SEGMENT_BYTES, 2 * SEGMENT_BYTES + 10])
def test_any_altered_byte_is_found(size: int) -> None:
    inner, sealed = pair()
    sealed.put("packs/a", noise(size))
    whole = inner.get("packs/a")
    step = max(1, len(whole) // 100)
    for at in {*range(HEADER_BYTES + TAG_BYTES), *range(0, len(whole), step), len(whole) - 1}:
        damaged = bytearray(whole)
        damaged[at] ^= 1
        inner.put("packs/a", damaged)
        with pytest.raises((ObjectDamaged, ObjectTorn, WrongKey, FormatUnknown), match="packs/a"):
            sealed.get("packs/a")


@pytest.mark.parametrize("at", [HEADER_BYTES, HEADER_BYTES + 100, HEADER_BYTES + STEP - 1])
def test_damage_is_found_by_the_ranges_that_it_is_in(at: int) -> None:
    inner, sealed = pair()
    sealed.put("a", noise(3 * SEGMENT_BYTES))
    damaged = bytearray(inner.get("a"))
    damaged[at] ^= 1
    inner.put("a", damaged)
    inner.read = 0
    with pytest.raises(ObjectDamaged, match=r"segment 0, from byte 0"):
        sealed.get("a", 5, 10)
    assert inner.read <= STEP + 2 * HEADER_BYTES
    assert sealed.get("a", SEGMENT_BYTES, 10) == noise(3 * SEGMENT_BYTES)[SEGMENT_BYTES:][:10]


def test_cut_and_grown_objects_are_found() -> None:
    inner, sealed = pair()
    sealed.put("a", noise(3 * SEGMENT_BYTES))
    whole = inner.get("a")
    for cut in (0, 5, HEADER_BYTES, HEADER_BYTES + STEP, HEADER_BYTES + 2 * STEP, len(whole) - 1):
        inner.put("a", whole[:cut])
        with pytest.raises((ObjectTorn, ObjectDamaged)):
            sealed.get("a")
        with pytest.raises((ObjectTorn, ObjectDamaged)):
            sealed.get("a", 2 * SEGMENT_BYTES, 10)
    inner.put("a", whole + bytes(STEP))
    with pytest.raises(ObjectDamaged):
        sealed.get("a")


def test_objects_and_segments_cannot_change_places() -> None:
    inner, sealed = pair()
    sealed.put("a", noise(2 * SEGMENT_BYTES, 1))
    sealed.put("b", noise(2 * SEGMENT_BYTES, 2))
    first, second = inner.get("a"), inner.get("b")
    inner.put("b", first)
    with pytest.raises(ObjectDamaged, match="moved from another name"):
        sealed.get("b")
    inner.put("b", second[: HEADER_BYTES + STEP] + first[HEADER_BYTES + STEP :])
    with pytest.raises(ObjectDamaged, match="segment 1"):
        sealed.get("b")
    body = second[HEADER_BYTES:]
    inner.put("b", second[:HEADER_BYTES] + body[STEP:] + body[:STEP])
    with pytest.raises(ObjectDamaged, match="segment 0"):
        sealed.get("b")


def test_a_range_of_an_object_replaced_by_another_process() -> None:
    inner, sealed = pair()
    sealed.put("a", noise(100_000, 1))
    assert sealed.get("a", 10, 10) == noise(100_000, 1)[10:20]
    open_sealed(inner, KEY, ids(8)).put("a", noise(300_000, 2))
    assert sealed.get("a", 290_000, 10) == noise(300_000, 2)[290_000:290_010]
    open_sealed(inner, KEY, ids(9)).put("a", b"short")
    assert sealed.get("a", 1, 2) == b"ho"


def test_the_wrong_key_is_told_at_opening() -> None:
    inner, sealed = pair()
    sealed.put("a", b"x")
    with pytest.raises(WrongKey, match=r"encrypted with key ([0-9a-f]{16}), and the key given is (?!\1)"):
        open_sealed(inner, OTHER)
    with pytest.raises(WrongKey, match="no key was given: name its key file"):
        open_sealed(inner, None)
    with pytest.raises(WrongKey, match="object a is encrypted with key"):
        Sealed(inner, OTHER).get("a")
    assert open_sealed(inner, KEY).get("a") == b"x"


def test_an_open_vault_takes_no_key() -> None:
    inner = MemoryBackend()
    inner.put("packs/a", b"x")
    with pytest.raises(WrongKey, match="is not encrypted, and a key was given"):
        open_sealed(inner, KEY)
    assert [info.name for info in inner.list()] == ["packs/a"]


def test_two_that_mark_an_empty_vault_at_once() -> None:
    class Late(MemoryBackend):
        """Somebody else is faster by one request."""

        def create(self, name: str, data: bytes | bytearray | memoryview) -> None:
            if name == MARKER and MARKER not in [info.name for info in self.list()]:
                super().create(name, json.dumps({"format": 1, "key": "00" * 8}).encode())
            super().create(name, data)

    with pytest.raises(WrongKey, match="encrypted with key 0000000000000000, and the key given"):
        open_sealed(Late(), KEY)


def test_the_mark_is_not_an_object() -> None:
    inner, sealed = pair()
    assert [info.name for info in inner.list()] == [MARKER]
    assert list(sealed.list()) == []
    for use in (
        lambda: sealed.put(MARKER, b""),
        lambda: sealed.create(MARKER, b""),
        lambda: sealed.delete(MARKER),
    ):
        with pytest.raises(ValueError, match="own mark"):
            use()


@pytest.mark.parametrize("mark", [b"", b"[]", b"{}", b'{"format": "x", "key": 1}'])
def test_a_broken_mark_is_named(mark: bytes) -> None:
    inner, _ = pair()
    inner.put(MARKER, mark)
    with pytest.raises(ObjectDamaged, match=r"sealed\.json in memory cannot be read"):
        open_sealed(inner, KEY)


def test_a_newer_format_is_refused() -> None:
    inner, sealed = pair()
    sealed.put("a", b"x")
    newer = bytearray(inner.get("a"))
    newer[7] = 2
    inner.put("a", newer)
    with pytest.raises(
        FormatUnknown, match="format 2; this Midstep reads format 1: use the version that wrote it"
    ):
        sealed.get("a")
    inner.put(MARKER, json.dumps({"format": 2, "key": "00" * 8}).encode())
    with pytest.raises(FormatUnknown, match="encrypted in format 2"):
        open_sealed(inner, KEY)


def test_an_object_put_there_by_others_is_named() -> None:
    inner, sealed = pair()
    inner.put("a", b"plain")
    with pytest.raises(ObjectDamaged, match="object a is not encrypted by Midstep"):
        sealed.get("a")
    with pytest.raises(ObjectDamaged, match="object a is not encrypted by Midstep"):
        sealed.get("a", 1, 2)


def test_a_vault_on_disk_opened_again(tmp_path: Path) -> None:
    with_key = open_backend(str(tmp_path), key=KEY)
    with_key.create("a", b"secret content")
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert open_backend(f"file://{tmp_path}", key=KEY).get("a") == b"secret content"
    with pytest.raises(ObjectExists):
        open_backend(str(tmp_path), key=KEY).create("a", b"secret content")
    with pytest.raises(BackendError, match=f"{tmp_path} is encrypted"):
        open_backend(str(tmp_path))
