"""The little that we read in CRIU's images: its own times, and names that it lent to files.

An image is two 32-bit magic numbers, then protobuf messages with their 32-bit lengths. The few lines that
read them are here, rather than a protobuf library and CRIU's schemas on every node.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_US = 1e-6
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_REMAP_LINKED, _REMAP_GHOST = 0, 1
REGULAR_NAME_TAG = 6 << 3 | 2  # the field of a file's name in its entry


PageList = list[tuple[int, int]]  # (address, pages that follow each other)


@dataclass(frozen=True, slots=True)
class DumpTimes:
    freezing_s: float
    frozen_s: float
    memdump_s: float
    memwrite_s: float
    written_bytes: int


@dataclass(frozen=True, slots=True)
class RestoreTimes:
    forking_s: float
    restore_s: float
    restored_bytes: int


def dump_times(images: Path) -> DumpTimes:
    """All zero when CRIU left no such file."""
    n = _numbers(images / "stats-dump")
    seconds = [n.get(field, 0) * _US for field in (1, 2, 3, 4)]
    return DumpTimes(*seconds, written_bytes=n.get(7, 0) * PAGE_BYTES)


def restore_times(images: Path) -> RestoreTimes:
    n = _numbers(images / "stats-restore")
    return RestoreTimes(n.get(3, 0) * _US, n.get(4, 0) * _US, n.get(5, 0) * PAGE_BYTES)


def borrowed_names(images: Path) -> list[str]:
    """Names that CRIU gave to open files that lost theirs but have others: `link_remap.N`, from / on."""
    return _names(images, {new for _, new in _remaps(images, _REMAP_LINKED)})


def ghost_names(images: Path) -> frozenset[str]:
    """Names that deleted files had, beside which CRIU makes them anew for an instant at a restore."""
    return frozenset(_names(images, {old for old, _ in _remaps(images, _REMAP_GHOST)}))


def page_lists(images: Path) -> dict[int, tuple[int, PageList]]:
    """By a process's own pid: the number of the file with its pages, and which these are, in order."""
    found: dict[int, tuple[int, PageList]] = {}
    for path in images.glob("pagemap-[0-9]*.img"):
        head, *entries = [dict(_fields(entry)) for entry in _messages(path)]
        runs = [(_int(it, 1), _int(it, 5) or _int(it, 2)) for it in entries]  # 2: of more than 32 bits in 5
        found[int(path.stem.partition("-")[2])] = (_int(head, 1), runs)
    return found


def _int(fields: dict[int, int | bytes], number: int) -> int:
    value = fields.get(number, 0)
    return value if isinstance(value, int) else 0


def _remaps(images: Path, kind: int) -> list[tuple[int | bytes | None, int | bytes | None]]:
    """Of the files that cannot be opened by their name: (id of the file, id of what stands for it)."""
    remaps = [dict(_fields(entry)) for entry in _messages(images / "remap-fpath.img")]
    return [(remap.get(1), remap.get(2)) for remap in remaps if remap.get(3, 0) == kind]


def _names(images: Path, ids: set[int | bytes | None]) -> list[str]:
    """The names of the regular files with these ids."""
    names: list[str] = []
    for entry in _messages(images / "files.img") if ids else ():
        fields = dict(_fields(entry))
        regular = fields.get(3)
        if fields.get(2) in ids and isinstance(regular, bytes):
            name = dict(_fields(regular)).get(6)
            if isinstance(name, bytes):
                names.append(os.fsdecode(name))
    return names


def _numbers(path: Path) -> dict[int, int]:
    """The numbers in the one message of the one message inside."""
    for entry in _messages(path):
        for _, inner in _fields(entry):
            if isinstance(inner, bytes):
                return {number: value for number, value in _fields(inner) if isinstance(value, int)}
    return {}


def _messages(path: Path) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    at = 8
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message: an int, or the bytes of a string or an inner
    message.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 2:
                length, at = _varint(data, at)
                yield key >> 3, data[at : at + length]
                at += length
            case 1 | 5 as kind:
                at += 8 if kind == 1 else 4
            case kind:
                raise ValueError(f"not a CRIU image: field of type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
