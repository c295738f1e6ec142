"""A folder comes back as it was, and a manifest from anywhere cannot write outside of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midstep.vault.archive.trees import Entry, Kind, Tree, filled, from_rows, list_tree, restore_tree, to_rows
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.errors import ManifestDamaged
from midstep.vault.store.content import Content
from midstep.vault.store.repository import Repository


def everything(folder: Path) -> None:
    """One of each."""
    (folder / "sub" / "deeper").mkdir(parents=True)
    (folder / "plain").write_bytes(b"x" * 10_000)
    (folder / "empty").write_bytes(b"")
    with (folder / "sub" / "holes").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    os.link(folder / "plain", folder / "sub" / "again")
    os.symlink("nowhere/../at all", folder / "sub" / "link")
    os.symlink("sub", folder / "to a folder")
    os.mkfifo(folder / "fifo")
    (folder / os.fsdecode(b"not \xff utf-8\n")).write_bytes(b"odd name")
    (folder / "secret").write_bytes(b"s")
    os.chmod(folder / "secret", 0o4710)
    os.chmod(folder / "sub" / "deeper", 0o555)
    if os.geteuid() == 0:
        os.chown(folder / "secret", 1234, 4321)
        os.chmod(folder / "secret", 0o4710)
        os.mknod(folder / "null", 0o20666, os.makedev(1, 3))
    try:
        os.setxattr(folder / "plain", "user.note", b"\0kept")
    except OSError:  # a file system without them
        pass
    for number, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number + 1), follow_symlinks=False)


def seen(folder: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        info = path.lstat()
        data: object = None
        if path.is_symlink():
            data = os.readlink(path)
        elif path.is_file():
            data = (path.read_bytes(), tuple(os.listxattr(path)))
        name = str(path.relative_to(folder))
        owner = (info.st_mode, info.st_uid, info.st_gid, info.st_rdev)
        found[name] = (*owner, info.st_mtime_ns, info.st_nlink if not path.is_dir() else 0, data)
    return found


@pytest.fixture
def repository() -> Repository:
    return Repository(MemoryBackend(), workers=1)


def stored(folder: Path, repository: Repository) -> Tree:
    tree = list_tree(folder)
    files = [entry.path for entry in tree if entry.kind is Kind.FILE]
    with repository.writer() as writer:
        contents = writer.add_files([folder / path for path in files])
    return filled(tree, dict(zip(files, contents)))


def test_everything_comes_back(tmp_path: Path, repository: Repository) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    everything(source)
    before = seen(source)
    tree = from_rows(to_rows(stored(source, repository)))
    restore_tree(tree, target, repository.read_many)
    assert seen(target) == before
    assert (target / "sub" / "holes").stat().st_blocks * 512 < 1 << 20, "its holes are holes"
    assert (target / "plain").stat().st_ino == (target / "sub" / "again").stat().st_ino


def test_only_wanted_files_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    tree = list_tree(tmp_path, {"a"}.__contains__)
    assert [entry.path for entry in tree] == ["", "a"]


FOLDER = Entry("", Kind.FOLDER, 0o755, 0, 0, 1, 1)
FILE = Entry("f", Kind.FILE, 0o644, 0, 0, 1, 1, content=Content(0, ()))
LINK = Entry("l", Kind.LINK, 0o777, 0, 0, 1, 1, target="/etc")


@pytest.mark.parametrize(
    "tree",
    [
        [FILE],
        [FOLDER, FOLDER],
        [FOLDER, replace(FILE, path="../f")],
        [FOLDER, replace(FILE, path="/etc/passwd")],
        [FOLDER, replace(FILE, path="a/../../f")],
        [FOLDER, replace(FILE, path="..")],
        [FOLDER, replace(FILE, path="not there/f")],
        [FOLDER, LINK, replace(FILE, path="l/f")],
        [FOLDER, FILE, FILE],
        [FOLDER, replace(FILE, path="f\0")],
        [FOLDER, replace(LINK, kind=Kind.HARD, target="/etc/shadow")],
        [FOLDER, replace(LINK, kind=Kind.HARD, target="later"), replace(FILE, path="later")],
        [FOLDER, replace(FOLDER, path="d"), replace(LINK, kind=Kind.HARD, target="d")],
    ],
    ids=range(13),
)
def test_a_tree_that_leads_out_of_its_folder_is_refused(tree: Sequence[Entry]) -> None:
    with pytest.raises(ManifestDamaged):
        from_rows(to_rows(tuple(tree)))


ROWS: list[Any] = [
    None,
    [],
    ["x"],
    ["f", "file", 0, 0, 0, 0, 0],
    ["f", "socket", 0, 0, 0, 0, 0],
    ["f", "file", 0, 0, 0, 0, 0, [5, [4], "AAAA"]],
    ["f", "file", 0, 0, 0, 0, 0, [-1, [-1], "A" * 43 + "="]],
    ["d", "folder", 0, 0, 0, 0, 0, [0, [], ""]],
]


@pytest.mark.parametrize("row", ROWS)
def test_rows_that_are_no_entry_are_refused(row: object) -> None:
    with pytest.raises(ManifestDamaged):
        from_rows([*to_rows((FOLDER,)), row])
