"""Work directories: what goes, what stays, how large; and how files come back."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from midstep.client.errors import LocalProblem
from midstep.client.fleet import FleetClient
from midstep.client.ignore import Ignore, parse
from midstep.client.pull import pull
from midstep.client.workdir import pack, scan


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return root


def paths(root: Path) -> list[str]:
    return [e.path for e in scan(root).entries if e.kind != "folder"]


def test_what_tools_leave_behind_stays_here(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "a.py",
        "src/b.py",
        ".git/x",
        ".venv/y",
        "venv/z",
        "src/__pycache__/b.pyc",
        "node_modules/m",
        ".env",
    )
    assert paths(tmp_path) == [".env", "a.py", "src/b.py"]


def test_midstepignore(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "a.py",
        "data/x.bin",
        "src/data/y.bin",
        "out.log",
        "keep.log",
        "src/out.log",
        "build/b",
        "src/build",
    )
    (tmp_path / ".midstepignore").write_text("# big\n/data\n*.log\n!keep.log\nbuild/\n\n")
    assert paths(tmp_path) == [".midstepignore", "a.py", "keep.log", "src/build", "src/data/y.bin"]


@pytest.mark.parametrize(
    ("pattern", "path", "is_folder", "ignored"),
    [
        ("*.pt", "a/b/c.pt", False, True),
        ("a/*.pt", "a/c.pt", False, True),
        ("a/*.pt", "b/a/c.pt", False, False),
        ("**/c.pt", "a/b/c.pt", False, True),
        ("a/**/c.pt", "a/c.pt", False, True),
        ("run?", "run1", True, True),
        ("out/", "out", False, False),
        ("out/", "out", True, True),
    ],
)
def test_patterns(pattern: str, path: str, is_folder: bool, ignored: bool) -> None:
    parsed = parse(pattern)
    assert parsed is not None
    assert Ignore([parsed])(path, is_folder) is ignored


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    tree(tmp_path, "a.py", "b/c.py")
    (tmp_path / "link").symlink_to("a.py")
    archives: list[bytes] = []
    for _ in range(2):
        archive, nbytes = pack(scan(tmp_path))
        with archive:
            archives.append(archive.read())
        assert nbytes == len(archives[-1])
    assert archives[0] == archives[1]
    with tarfile.open(fileobj=io.BytesIO(archives[0])) as tar:
        assert tar.getnames() == ["a.py", "b", "b/c.py", "link"]
        assert tar.getmember("link").linkname == "a.py"


def test_sockets_and_pipes_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert paths(tree(tmp_path, "a")) == ["a"]


def test_too_large_names_the_largest(tmp_path: Path) -> None:
    tree(tmp_path, "small")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "big.bin").write_bytes(bytes(3_000_000))
    with pytest.raises(LocalProblem, match=r"larger than 2 MB; the largest so far: data \(3 MB\)") as caught:
        scan(tmp_path, max_bytes=2_000_000)
    assert ".midstepignore" in caught.value.hint


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LocalProblem, match="is not a folder"):
        scan(tmp_path / "none")


class Files:
    """A fleet that has one job, whose files are these."""

    def __init__(self, files: dict[str, str], links: dict[str, str] | None = None) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content.encode()))
            for name, target in (links or {}).items():
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
        self._bytes = buffer.getvalue()

    @contextmanager
    def files(self, job: str) -> Iterator[Iterator[bytes]]:
        yield iter([self._bytes[i : i + 700] for i in range(0, len(self._bytes), 700)])

    @property
    def client(self) -> FleetClient:
        return cast(FleetClient, self)


def test_pull_writes_what_is_new_and_keeps_what_differs(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "same").write_text("same")
    theirs = Files({"mine": "theirs", "same": "same", "sub/new": "new"}).client
    pulled = pull(theirs, "j", tmp_path, may_replace=lambda _: False)
    assert (pulled.written, pulled.same, pulled.kept) == (["sub/new"], 1, ["mine"])
    assert (tmp_path / "mine").read_text() == "mine"
    assert pull(theirs, "j", tmp_path, may_replace=lambda _: True).written == ["mine"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "same", "sub"]


def test_only_files_untouched_since_the_upload_are_replaced(tmp_path: Path) -> None:
    listing = scan(tree(tmp_path, "result", "notes"))
    (tmp_path / "notes").write_text("edited while the job ran")
    pulled = pull(Files({"result": "r", "notes": "n", "new": "x"}).client, "j", tmp_path, listing.unchanged)
    assert (sorted(pulled.written), pulled.kept) == (["new", "result"], ["notes"])
    (tmp_path / "later").write_text("made while the job ran")
    assert pull(Files({"later": "x"}).client, "j", tmp_path, listing.unchanged).kept == ["later"]


def test_nothing_lands_outside(tmp_path: Path) -> None:
    target = tmp_path / "target"
    evil = Files({"../evil": "x", "good": "y"}, {"up": "../..", "far": "/etc"})
    pulled = pull(evil.client, "j", target, may_replace=lambda _: True)
    assert (pulled.written, pulled.refused) == (["good"], ["../evil", "up", "far"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["target"]


def test_other_nodes_files_come_only_if_they_differ(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("script")
    theirs = Files(
        {"train.py": "script", "out": "0", "home-1/train.py": "script", "home-1/out": "1", "home-1/b": "1"}
    )
    pulled = pull(theirs.client, "j", tmp_path, lambda _: True, drop_copies=True)
    assert sorted(pulled.written) == ["home-1/b", "home-1/out", "out"]
