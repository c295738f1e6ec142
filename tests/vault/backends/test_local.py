"""A folder's own troubles: killed writers, full disks, wrong owners; in which order things reach the disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from midstep.vault.backends.local import LocalBackend
from midstep.vault.backends.open import open_backend
from midstep.vault.errors import BackendDenied, BackendError, BackendFull, ObjectExists, ObjectMissing
from tests.vault.backends.kit import noise

WRITER = """
import sys
from pathlib import Path
from midstep.vault.backends.local import LocalBackend
root, call = sys.argv[1:]
backend = LocalBackend(Path(root))
for turn in range(1000):
    data = bytes([turn % 251]) * (24 << 20)
    backend.put("packs/same", data) if call == "put" else backend.create(f"packs/{turn}", data)
"""
CREATOR = """
import sys
from pathlib import Path
from midstep.vault.backends.local import LocalBackend
from midstep.vault.errors import ObjectExists
root, who = sys.argv[1:]
backend, won = LocalBackend(Path(root)), 0
print("ready", flush=True)
sys.stdin.readline()
for turn in range(200):
    try:
        backend.create(f"fences/{turn}", who.encode() * 1000)
        won += 1
    except ObjectExists:
        pass
print(won)
"""


def start(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def kill_within_a_write(writer: subprocess.Popen[str], temporary: Path) -> None:
    """When a temporary file is partly written, and some objects are whole."""
    for _ in range(100_000):
        assert writer.poll() is None, "the writer ended by itself"
        whole = list(temporary.parent.glob("packs/*"))
        with contextlib.suppress(FileNotFoundError):
            sizes = [path.stat().st_size for path in temporary.iterdir()]
            if whole and any(0 < size < 24 << 20 for size in sizes):
                os.kill(writer.pid, signal.SIGSTOP)  # look again while it stands still
                sizes = [path.stat().st_size for path in temporary.iterdir()]
                if any(0 < size < 24 << 20 for size in sizes):
                    writer.kill()
                    writer.communicate()
                    return
                os.kill(writer.pid, signal.SIGCONT)
    writer.kill()
    writer.communicate()
    raise AssertionError("never seen in the middle of a write")


@pytest.mark.parametrize("call", ["put", "create"])
def test_a_killed_writer_leaves_nothing_half_visible(tmp_path: Path, call: str) -> None:
    kill_within_a_write(start(WRITER, tmp_path, call), tmp_path / ".tmp")
    backend = LocalBackend(tmp_path)
    seen = list(backend.list())
    assert seen and all(info.size == 24 << 20 for info in seen)
    for info in seen:
        assert len(set(backend.get(info.name))) == 1
    assert len(backend.sweep()) == 1
    assert list((tmp_path / ".tmp").iterdir()) == []
    assert list(backend.list()) == seen


def test_opening_clears_up_after_killed_writers(tmp_path: Path) -> None:
    LocalBackend(tmp_path).put("a", b"x")
    (tmp_path / ".tmp" / "tmpleft").write_bytes(b"half")
    assert open_backend(str(tmp_path)).get("a") == b"x"
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_sweeping_leaves_a_living_writer_alone(tmp_path: Path) -> None:
    writer = start(WRITER, tmp_path, "create")
    backend, temporary = LocalBackend(tmp_path), tmp_path / ".tmp"
    while not (temporary.exists() and any(temporary.iterdir())):
        time.sleep(0.001)
    before = len(list(backend.list("packs")))
    for _ in range(200):
        backend.sweep()
    deadline = 2000
    while len(list(backend.list("packs"))) < before + 2 and deadline:
        assert writer.poll() is None, "swept away under the writer"
        backend.sweep()
        deadline -= 1
        time.sleep(0.005)
    assert deadline, "the writer gets nowhere"
    writer.kill()
    writer.communicate()


def test_of_creators_in_several_processes_one_succeeds(tmp_path: Path) -> None:
    creators = [start(CREATOR, tmp_path, who) for who in "abc"]
    for creator in creators:
        assert creator.stdout is not None and creator.stdout.readline() == "ready\n"
    for creator in creators:
        assert creator.stdin is not None
        creator.stdin.write("go\n")
        creator.stdin.flush()
    won = [int(creator.communicate(timeout=120)[0]) for creator in creators]
    backend = LocalBackend(tmp_path)
    assert sum(won) == len(list(backend.list("fences"))) == 200
    assert {len(set(backend.get(info.name))) for info in backend.list("fences")} == {1}


@pytest.mark.parametrize("call", ["put", "create"])
def test_content_reaches_the_disk_before_its_name(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(tmp_path / "vault")
    done: list[str] = []
    sync, replace, link = os.fsync, os.replace, os.link

    def note_sync(descriptor: int) -> None:
        done.append(f"sync {os.path.relpath(os.readlink(f'/proc/self/fd/{descriptor}'), tmp_path)}")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("name"), replace(old, new)))
    monkeypatch.setattr(os, "link", lambda old, new: (done.append("name"), link(old, new)))
    (backend.put if call == "put" else backend.create)("packs/3f/a", b"x")
    content = next(step for step in done if "/.tmp/" in step)
    named = done.index("name")
    assert done.index(content) < named
    # folders that are new, each in its parent; then the name itself
    assert {"sync .", "sync vault", "sync vault/packs"} <= set(done[:named])
    assert done[named + 1 :] == ["sync vault/packs/3f"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("call", ["put", "create"])
def test_a_full_disk_keeps_what_was_there(small_disk: Path, call: str) -> None:
    backend = LocalBackend(small_disk / "vault")
    backend.put("a", noise(600_000))
    write = backend.put if call == "put" else backend.create
    with pytest.raises(
        BackendFull, match=rf"no space for object b.*{small_disk}/vault.*0 MiB free.*make room"
    ):
        write("b", noise(600_000))
    assert [info.name for info in backend.list()] == ["a"]
    assert backend.get("a") == noise(600_000)
    assert list((small_disk / "vault" / ".tmp").iterdir()) == []
    backend.delete("a")
    write("b", noise(600_000))
    assert backend.get("b") == noise(600_000)


def test_a_full_disk_keeps_the_old_version(small_disk: Path) -> None:
    backend = LocalBackend(small_disk / "vault")
    backend.put("a", b"old" * 100_000)
    with pytest.raises(BackendFull):
        backend.put("a", noise(900_000))
    assert backend.get("a") == b"old" * 100_000


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    backend = LocalBackend(small_disk / "vault")
    backend.put("a", b"x")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for write in (backend.put, backend.create):
        with pytest.raises(BackendDenied, match=r"object b.*Read-only.*check owner, mode and mount"):
            write("b", b"x")
    with pytest.raises(BackendDenied, match="Read-only"):
        backend.delete("a")
    assert open_backend(str(small_disk / "vault")).get("a") == b"x"


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    backend = LocalBackend(tmp_path / "file")
    with pytest.raises(BackendError, match=f"{tmp_path}.*(no object of ours|is in its place)"):
        backend.put("a", b"x")
    with pytest.raises(ObjectMissing):
        backend.get("a")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_is_not_also_a_folder(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.put("packs/a", b"x")
    with pytest.raises(BackendError):
        backend.put("packs", b"y")
    with pytest.raises(BackendError):
        backend.put("packs/a/b", b"y")
    with pytest.raises(ObjectMissing):
        backend.get("packs/a/b")
    assert backend.get("packs/a") == b"x"


def test_folders_that_somebody_removed_are_made_again(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "vault")
    backend.put("packs/a", b"x")
    (tmp_path / "vault" / "packs" / "a").unlink()
    (tmp_path / "vault" / "packs").rmdir()
    (tmp_path / "vault" / ".tmp").rmdir()
    backend.put("packs/a", b"again")
    with pytest.raises(ObjectExists):
        backend.create("packs/a", b"x")
    assert backend.get("packs/a") == b"again"


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    LocalBackend(tmp_path / "vault").put("packs/a", b"x")
    for path in (tmp_path / "vault", tmp_path / "vault" / "packs", tmp_path / "vault" / "packs" / "a"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_hole_in_a_read_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is cut while it is read (not by us) is told, not shortened."""
    backend = LocalBackend(tmp_path)
    backend.put("a", noise(100_000))
    real = os.pread

    def cut_then_read(descriptor: int, length: int, start: int) -> bytes:
        os.truncate(tmp_path / "a", 5000)
        return real(descriptor, length, start)

    monkeypatch.setattr(os, "pread", cut_then_read)
    with pytest.raises(BackendError, match="ended at byte 5000"):
        backend.get("a")
