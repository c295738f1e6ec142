"""What a new chunk still has of chunks that lay there before: line by line of 64 bytes.

In a heap a few bytes change here and there, and every chunk around one is new; and a tensor that a step has
changed may be in several places, each time in other chunks. So of chunks that are new, and of those that they
seem to have come from, each line is looked for where it came first. What is there is referred to as parts of
chunks; what is left goes together into chunks of its own. A chunk of which little is there is stored whole:
under its own id it is known next time without a look.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from midstep.vault.backends.base import Buffer
from midstep.vault.store.chunker import LINE
from midstep.vault.store.content import ChunkId, Span

_RUN = 8  # lines; what is shorter is rather stored again than referred to
_NEW_SHARE = 0.75  # of a chunk: where more is new, all of it is stored
_USED_SHARE = (
    0.25  # of an old chunk: where less is of use, nothing of it is used, or it would stay for little
)
_GLANCE, _WORTH = 16, 0.1  # one line in so many is looked at first; such a share has to be there twice
_BLOCK = 1 << 16  # lines compared at a time
_GATHERED = 1536  # lines of a chunk of what is left: 96 KiB
_ODD = np.random.default_rng(LINE).integers(2**63, size=LINE // 8, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)
Numbers = NDArray[np.int64]
Lines = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Found:
    """``spans``: for each new chunk that is not to be stored itself, what it consists of; ``gathered``: the
    chunks to be stored instead."""

    spans: dict[ChunkId, tuple[Span, ...]]
    gathered: list[tuple[ChunkId, bytes]]


def find(old: Iterable[tuple[ChunkId, Buffer]], new: Iterable[tuple[ChunkId, Buffer]]) -> Found:
    """Look. All chunks consist of whole lines, and no id comes twice; there is a new one at least."""
    content, ids, ends = bytearray(), list[ChunkId](), [0]
    olds = 0
    for chunks in (old, new):
        olds = len(ids)
        for chunk, plain in chunks:
            content += plain
            ids.append(chunk)
            ends.append(len(content) // LINE)
    lines, begins = np.frombuffer(content, np.uint64).reshape(-1, LINE // 8), np.array(ends)
    worth = np.flatnonzero(_worth(lines, begins))
    olds, ids = int(np.searchsorted(worth, olds)), [ids[number] for number in worth.tolist()]
    lines, begins = _packed(lines, begins, worth)
    if olds == len(ids):
        return Found({}, [])
    first = int(begins[olds])  # of the new lines
    source = _sources(lines, first, begins)
    lengths = np.diff(begins[olds:])
    left = np.add.reduceat(source[first:] == np.arange(first, len(lines)), begins[olds:-1] - first)
    apart = left <= _NEW_SHARE * lengths
    place, gathered = _places(lines, source, first, np.repeat(apart, lengths))
    units = np.concatenate((begins[:-1], np.arange(len(lines), int(place.max()) + 1, _GATHERED)))
    stored = [*ids, *(chunk for chunk, _ in gathered)]
    spans = {
        ids[number]: _spans(place[source[begins[number] : begins[number + 1]]], units, stored)
        for number in (np.flatnonzero(apart) + olds).tolist()
    }
    return Found(spans, gathered)


def _packed(lines: Lines, begins: Numbers, wanted: Numbers) -> tuple[Lines, Numbers]:
    """Without the other chunks, in place."""
    at = [0]
    for begin, end in zip(begins[wanted].tolist(), begins[wanted + 1].tolist()):
        at.append(at[-1] + end - begin)
        if at[-1] < end:
            lines[at[-2] : at[-1]] = lines[begin:end]
    return lines[: at[-1]], np.array(at)


def _worth(lines: Lines, begins: Numbers) -> NDArray[np.bool_]:
    """Which chunks have lines that come again, by a glance at a few, chosen by what is in them: most tensors
    that a step has changed have none."""
    mixed = (lines[:, 2] ^ lines[:, 5]) * _ODD[0]
    some = np.flatnonzero(mixed < np.uint64(2**64 // _GLANCE))
    _, which, counts = np.unique(_hashes(lines[some]), return_inverse=True, return_counts=True)
    chunk = np.searchsorted(begins, some, "right") - 1
    again = np.bincount(chunk[counts[which] > 1], minlength=len(begins) - 1)
    return again >= _WORTH * np.bincount(chunk, minlength=len(begins) - 1)


def _sources(lines: Lines, first: int, begins: Numbers) -> Numbers:
    """For each line, an equal one before it that is or will be stored; itself, if it has to be stored."""
    hashes = _hashes(lines)
    order = np.argsort(hashes)
    edges = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
    source = np.empty(len(lines), np.int64)
    source[order] = np.repeat(np.minimum.reduceat(order, edges), np.diff(edges, append=len(lines)))
    source[:first] = np.arange(first)
    _continue(source, hashes, first)
    for at in range(first, len(lines), _BLOCK):
        part = source[at : at + _BLOCK]
        wrong = (lines[part] != lines[at : at + _BLOCK]).any(axis=1)  # other lines of the same hash
        _keep(source, np.flatnonzero(wrong) + at)
    _keep(source, _short(source, first, begins))
    copies = np.flatnonzero(source[first:] < first) + first
    chunk = np.searchsorted(begins, np.arange(first), "right") - 1  # of each old line
    used = np.bincount(chunk[np.unique(source[copies])], minlength=len(begins))
    little = used < _USED_SHARE * np.diff(begins, append=len(lines))
    _keep(source, copies[little[chunk[source[copies]]]])
    return source


def _hashes(lines: Lines) -> Lines:
    mixed = np.zeros(len(lines), np.uint64)
    for column, odd in enumerate(_ODD):  # column by column: no copy of all
        word = lines[:, column]
        mixed += (word ^ (word >> np.uint64(29))) * odd
    return mixed ^ (mixed >> np.uint64(32))


def _continue(source: Numbers, hashes: Lines, first: int) -> None:
    """Of lines that come often take those that follow the line before: fewer and longer parts."""
    root = source == np.arange(len(source))
    end = first
    for at in (np.flatnonzero(np.diff(source[first:]) != 1) + first + 1).tolist():
        if at < end:
            continue
        then = int(source[at - 1]) + 1
        while at < len(source) and then < at:
            most = min(256, len(source) - at, at - then)
            same = (hashes[then : then + most] == hashes[at : at + most]) & root[then : then + most]
            count = most if same.all() else int(same.argmin())
            source[at : at + count] = np.arange(then, then + count)
            at, then = at + count, then + count
            if count < most:
                break
        end = at


def _short(source: Numbers, first: int, begins: Numbers) -> Numbers:
    """Lines in runs that are too short to be referred to."""
    edge = np.ones(len(source) - first + 1, np.bool_)
    edge[1:-1] = np.diff(source[first:]) != 1
    edge[begins[begins >= first] - first] = True
    at = np.flatnonzero(edge)
    short = np.repeat(np.diff(at) < _RUN, np.diff(at))
    return np.flatnonzero(short) + first


def _keep(source: Numbers, lines: Numbers) -> None:
    """These have to be stored after all."""
    source[lines] = lines


def _places(
    lines: Lines, source: Numbers, first: int, apart: NDArray[np.bool_]
) -> tuple[Numbers, list[tuple[ChunkId, bytes]]]:
    """Where each line is stored: in its own chunk, or behind all lines, in those that are gathered."""
    place = np.arange(len(lines))
    left = np.flatnonzero(apart & (source[first:] == place[first:])) + first
    place[left] = np.arange(len(lines), len(lines) + len(left))
    parts = (lines[left[at : at + _GATHERED]].tobytes() for at in range(0, len(left), _GATHERED))
    return place, [(blake3(part).digest(), part) for part in parts]


def _spans(place: Numbers, units: Numbers, ids: Sequence[ChunkId]) -> tuple[Span, ...]:
    """Lines as parts of what is stored in units, each from its place on."""
    unit = np.searchsorted(units, place, "right") - 1
    at = np.flatnonzero(np.diff(place, prepend=-2) != 1)
    at = np.union1d(at, np.flatnonzero(np.diff(unit, prepend=-1)))
    lengths = np.diff(at, append=len(place)) * LINE
    offsets = (place[at] - units[unit[at]]) * LINE
    return tuple(
        Span(ids[which], length, offset)
        for which, length, offset in zip(unit[at].tolist(), lengths.tolist(), offsets.tolist())
    )
