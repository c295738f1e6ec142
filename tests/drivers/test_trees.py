"""A copied home is as its original, to the nanosecond and the hole."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from midstep.agent.drivers.errors import TooSlow
from midstep.agent.drivers.trees import copy_tree


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        info = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        attributes = {
            n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)
        }
        blocks = info.st_blocks if path.is_file() else None
        found[str(path.relative_to(root))] = (
            oct(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, content, attributes, blocks,
        )  # fmt: skip
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").touch()
    (root / "deep" / "file").write_bytes(os.urandom(3_000_000))
    os.link(root / "deep" / "file", root / "deep" / "er" / "same")
    (root / "link").symlink_to("deep/file")
    (root / "dangling").symlink_to("nowhere")
    os.link(root / "dangling", root / "dangling too", follow_symlinks=False)
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 28)
        file.seek(1 << 27)
        file.write(b"middle" * 1000)
    (root / "all hole").touch()
    os.truncate(root / "all hole", 1 << 20)
    (root / "deep" / "er").chmod(0o1711)
    (root / "empty").chmod(0o4750)
    if os.geteuid() == 0:
        os.chown(root / "deep", 1234, 5678)
        os.chown(root / "link", 1234, 5678, follow_symlinks=False)
    try:
        os.setxattr(root / "empty", "user.colour", b"red")
    except OSError:
        pass
    for path in (root / "deep" / "file", root / "deep" / "er", root):
        os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    return root


def test_everything_is_kept(source: Path, tmp_path: Path) -> None:
    copied = copy_tree(source, tmp_path / "copy")
    assert describe(tmp_path / "copy") == describe(source)
    assert (tmp_path / "copy/deep/file").samefile(tmp_path / "copy/deep/er/same")
    assert copied.files == 9
    assert 3_006_000 <= copied.bytes < 3_100_000


def test_over_an_older_copy(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy_tree(source, copy)
    (copy / "deep" / "er" / "same").unlink()
    (copy / "empty").unlink()
    (copy / "empty").symlink_to("/etc/passwd")
    before = Path("/etc/passwd").read_bytes()
    copy_tree(source, copy)
    assert describe(copy) == describe(source)
    assert Path("/etc/passwd").read_bytes() == before


def test_sockets_are_left_out(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("a.sock")
        copy_tree(source, tmp_path / "copy")
    assert not (tmp_path / "copy" / "a.sock").exists()


def test_between_file_systems(source: Path, tmp_path: Path) -> None:
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no other file system at hand")
    there = Path(f"/dev/shm/midstep-trees-{os.getpid()}")
    try:
        copy_tree(source / "deep", there)
        copy_tree(there, tmp_path / "back")
        assert (tmp_path / "back" / "file").read_bytes() == (source / "deep" / "file").read_bytes()
    finally:
        subprocess.run(["rm", "-rf", str(there)], check=True)


def test_a_deadline(source: Path, tmp_path: Path) -> None:
    with pytest.raises(TooSlow, match="not copied in time"):
        copy_tree(source, tmp_path / "copy", deadline_s=-1)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy_tree(tmp_path / "none", tmp_path / "copy")
