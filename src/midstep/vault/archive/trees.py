"""A folder as a tree of entries whose files' contents are in a repository, and back.

Everything that a program can tell apart afterwards is kept: modes, owners, times to the nanosecond, extended
attributes, hard links, holes. Sockets are not: CRIU makes those that are still listened on. Entries are in
the order in which they can be made: a folder before what is in it, a hard link after the name it points to.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from midstep.vault.errors import ManifestDamaged
from midstep.vault.store.content import Content, Span

ID_BYTES = 32


class Kind(enum.StrEnum):
    """What an entry is."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"  # symbolic; `target` is what it says
    HARD = "hard"  # another name of the file at `target`
    FIFO = "fifo"
    CHARACTER = "character"
    BLOCK = "block"


_SPECIAL = {Kind.FIFO: stat.S_IFIFO, Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}
_KINDS = {stat.S_IFDIR: Kind.FOLDER, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.LINK} | {
    bits: kind for kind, bits in _SPECIAL.items()
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name. ``path`` is below the tree's folder ('' is the folder itself); ``mode`` without the type."""

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    target: str = ""
    device: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    content: Content | None = None


Tree = tuple[Entry, ...]
Fetch = Callable[[Sequence[tuple[Content, Path]]], object]  # writes files that are not there yet


def list_tree(folder: Path, wanted: Callable[[str], bool] = lambda _: True) -> Tree:
    """A folder without what its files hold. ``wanted``: which regular files to take, by path. OSError."""
    return tuple(_scan(folder, wanted))


def filled(tree: Tree, contents: Mapping[str, Content]) -> Tree:
    """The same with it, by path."""
    return tuple(replace(entry, content=contents.get(entry.path)) for entry in tree)


def restore_tree(tree: Tree, into: Path, fetch: Fetch) -> None:
    """Make a folder that is not there yet hold the tree. OSError, and what ``fetch`` raises: half of it is
    there."""
    for entry in tree:
        if entry.kind is Kind.FOLDER:
            os.mkdir(into / entry.path, 0o700)
    fetch([(e.content, into / e.path) for e in tree if e.kind is Kind.FILE and e.content is not None])
    for entry in tree:
        _make(entry, into)
    for entry in reversed(tree):  # folders last: what is made inside changes their times
        if entry.kind is not Kind.HARD:
            _attributes(entry, into / entry.path)


def contents_of(tree: Tree) -> Iterator[Content]:
    """What its files hold, each once."""
    return (entry.content for entry in tree if entry.content is not None)


def to_rows(tree: Tree) -> list[list[Any]]:
    """For JSON: one list an entry."""
    return [_row(entry) for entry in tree]


def from_rows(rows: Sequence[Any]) -> Tree:
    """Raises ManifestDamaged: not a tree, or one that would lead out of its folder."""
    try:
        tree = tuple(_entry(row) for row in rows)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise ManifestDamaged(f"a tree of files cannot be read: {error}") from None
    _refuse_outside(tree)
    return tree


def _scan(folder: Path, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    linked: dict[tuple[int, int], str] = {}
    pending = [""]
    while pending:
        at = pending.pop()
        yield _look(folder, at, linked)
        names = sorted(os.listdir(folder / at))
        for path in (f"{at}/{name}" if at else name for name in names):
            mode = os.lstat(folder / path).st_mode
            if stat.S_ISDIR(mode):
                pending.append(path)
            elif stat.S_IFMT(mode) in _KINDS and (not stat.S_ISREG(mode) or wanted(path)):
                yield _look(folder, path, linked)


def _look(folder: Path, path: str, linked: dict[tuple[int, int], str]) -> Entry:
    where = folder / path
    info = os.lstat(where)
    kind = _KINDS[stat.S_IFMT(info.st_mode)]
    times = (info.st_mtime_ns, info.st_atime_ns)
    entry = Entry(path, kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, *times)
    if kind is not Kind.FOLDER and info.st_nlink > 1:
        first = linked.setdefault((info.st_dev, info.st_ino), path)
        if first != path:
            return replace(entry, kind=Kind.HARD, target=first)
    if kind is Kind.LINK:
        entry = replace(entry, target=os.readlink(where))
    return replace(entry, device=info.st_rdev if kind in _SPECIAL else 0, xattrs=_xattrs(where))


def _xattrs(path: Path) -> tuple[tuple[str, bytes], ...]:
    with contextlib.suppress(OSError):  # a file system without them
        names = sorted(os.listxattr(path, follow_symlinks=False))
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return ()


def _make(entry: Entry, into: Path) -> None:
    path = into / entry.path
    if entry.kind is Kind.LINK:
        os.symlink(entry.target, path)
    elif entry.kind is Kind.HARD:
        os.link(into / entry.target, path, follow_symlinks=False)
    elif entry.kind in _SPECIAL:
        os.mknod(path, _SPECIAL[entry.kind] | 0o600, entry.device)


def _attributes(entry: Entry, path: Path) -> None:
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    with contextlib.suppress(OSError):
        for name, value in entry.xattrs:
            os.setxattr(path, name, value, follow_symlinks=False)
    if entry.kind is not Kind.LINK:
        os.chmod(path, entry.mode)
    os.utime(path, ns=(entry.atime_ns, entry.mtime_ns), follow_symlinks=False)


def _row(entry: Entry) -> list[Any]:
    """Without what is empty at the end: most entries are plain files and folders."""
    xattrs = [[name, base64.b64encode(value).decode()] for name, value in entry.xattrs]
    row = [entry.path, entry.kind.value, entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.atime_ns]
    row += [content_row(entry.content) if entry.content else None, entry.target, entry.device, xattrs]
    while len(row) > 7 and not row[-1]:
        row.pop()
    return row


def _entry(row: Any) -> Entry:
    given = list(cast("list[Any]", row))
    values: list[Any] = [*given, *[None, "", 0, []][len(given) - 7 :]] if len(given) >= 7 else []
    path, kind, mode, uid, gid, mtime_ns, atime_ns, content, target, device, xattrs = values
    kept = tuple((str(name), base64.b64decode(value)) for name, value in xattrs)
    found = content_of(content) if content is not None else None
    if (kind == Kind.FILE) != (found is not None):
        raise ValueError(f"{path!r} is a {kind} and {'has' if found else 'has no'} content")
    owner = (int(mode), int(uid), int(gid))
    return Entry(
        str(path), Kind(kind), *owner, int(mtime_ns), int(atime_ns), str(target), int(device), kept, found
    )


def content_row(content: Content) -> list[Any]:
    """Size, lengths, ids: `[n, [l1, l2], base64]`. Where there are parts of chunks, each id is there once,
    and two lists follow: which of them each span is of, and its offset (null: all of the chunk)."""
    lengths = [span.length for span in content.spans]
    if not content.in_parts:
        ids = b"".join(span.chunk for span in content.spans)
        return [content.size, lengths, base64.b64encode(ids).decode()]
    once = {chunk: number for number, chunk in enumerate(dict.fromkeys(span.chunk for span in content.spans))}
    offsets = [span.offset for span in content.spans]
    ids = base64.b64encode(b"".join(once)).decode()
    return [content.size, lengths, ids, [once[span.chunk] for span in content.spans], offsets]


def content_of(row: Any) -> Content:
    """The other way; ValueError, TypeError: it is none."""
    given = list(cast("list[Any]", row))
    size, lengths, text = cast("tuple[int, list[int], str]", tuple(given[:3]))
    ids = base64.b64decode(text, validate=True)
    chunks = [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
    parts = given[3:] or [range(len(chunks)), [None] * len(chunks)]
    which, offsets = cast("tuple[Sequence[int], Sequence[int | None]]", tuple(parts))
    if len(ids) % ID_BYTES or sum(lengths) != size or any(n <= 0 for n in lengths):
        raise ValueError("a file's chunks do not add up to its size")
    if any(number < 0 for number in which) or any(offset is not None and offset < 0 for offset in offsets):
        raise ValueError("a file has parts of no chunk")
    spans = zip(which, lengths, offsets, strict=True)
    return Content(size, tuple(Span(chunks[number], length, offset) for number, length, offset in spans))


def _refuse_outside(tree: Tree) -> None:
    """Every name lies in a folder of the tree that came before it, so no link can be written through."""
    folders: set[str] = set()
    seen: set[str] = set()
    for entry in tree:
        parent, _, name = entry.path.rpartition("/")
        top = entry.path == "" and entry.kind is Kind.FOLDER and not seen
        inside = parent in folders and name not in ("", ".", "..") and "\0" not in name
        if entry.path in seen or not (top or inside):
            raise ManifestDamaged(f"a tree of files holds {entry.path!r}, which is out of place")
        if entry.kind is Kind.HARD and (entry.target not in seen or entry.target in folders):
            raise ManifestDamaged(f"{entry.path!r} is a name of {entry.target!r}, which is not there")
        seen.add(entry.path)
        if entry.kind is Kind.FOLDER:
            folders.add(entry.path)
