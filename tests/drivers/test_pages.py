"""Memory as it was at a cut, stored while the rank runs on: out of a copy of it, or of a shadow."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from midstep.agent.drivers import freeze, launch, ptrace
from midstep.agent.drivers import pages as pages_module
from midstep.agent.drivers.buffers import Buffers, Copied
from midstep.agent.drivers.errors import TooSlow
from midstep.agent.drivers.pages import PageFile, Pages
from midstep.agent.drivers.shadow import Shadow
from midstep.agent.drivers.trees import copy_tree
from tests.drivers.nodes import STATE, Job, Node
from tests.drivers.test_criu import COUNTS

IMAGES = STATE / "images"
pytestmark = pytest.mark.skipif(not ptrace.SUPPORTED, reason="shadows are made on x86-64 only")

# One that was forked has large memory of its own; memory that all share; pages that no child gets; a pipe
# whose reader waits for its end.
TREE = """
import ctypes, hashlib, mmap, os, sys, time
private = bytearray(os.urandom(1) * (24 << 20))
private[:] = bytes(range(256)) * (len(private) // 256)
shared = mmap.mmap(-1, 1 << 20)
kept = [mmap.mmap(-1, 1 << 16, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2)]
for area, advice in zip(kept, (18, 10)):  # MADV_WIPEONFORK, MADV_DONTFORK
    area[:] = b'k' * len(area)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert not ctypes.CDLL(None).madvise(ctypes.c_void_p(at), ctypes.c_size_t(len(area)), advice)
child = os.fork()
if not child:
    mine = bytearray(b'child' * (4 << 20))
step = 0
read, write = os.pipe()
print('ready', flush=True)
while not os.path.exists('go'):
    private[step * 4096 % len(private)] ^= 1
    shared[step % len(shared)] = 1 + step % 255
    time.sleep(0.001)
    step += 1
    if os.path.exists('close') and write:
        os.close(write)
        write = 0
        os.read(read, 1)
        try:
            print('waits for', os.waitpid(-1, os.WNOHANG) if child else 'nobody', flush=True)
        except ChildProcessError:
            print('no child')
        print('closed', flush=True)
"""
SUMS = """
for i in range(step):
    private[i * 4096 % len(private)] ^= 1
private_ok = private == bytes(range(256)) * (len(private) // 256)
if child:
    _, status = os.waitpid(child, 0)
    print('whole', private_ok, status, bytes(kept[0][:1]), bytes(kept[1][:1]), max(shared[:]) > 0)
else:
    os._exit(0 if private_ok and mine == b'child' * (4 << 20) else 7)
"""


def copied() -> Pages:
    return Copied(Buffers(), 1 << 20)  # too small


def dump(job: Job, pages: Pages | None = None) -> Pages:
    pages = pages or Shadow()
    job.node.do(lambda: job.criu.dump(job.processes[0], IMAGES, 60, pages))
    return pages


def store(job: Job, shadow: Pages) -> int:
    try:
        return job.node.do(lambda: shadow.write(IMAGES, time.monotonic() + 60))
    finally:
        shadow.drop()


def restore(job: Job) -> None:
    """In place of the one that ran on, with the home as it was at the cut."""
    job.kill()
    shutil.rmtree(job.outside)
    job.node.do(lambda: copy_tree(STATE / "copy", job.home.path))
    job.processes = job.node.do(lambda: {0: job._restore(0, IMAGES)})  # pyright: ignore[reportPrivateUsage]


def copy_home(job: Job) -> None:
    job.node.do(lambda: copy_tree(job.home.path, STATE / "copy"))


def ends_alike(job: Job, frozen: freeze.Frozen, at_the_cut: str) -> None:
    """What runs on, and what is restored at the cut."""
    assert job.finish() == 0
    undisturbed = job.log()
    restore(job)
    assert job.log() == at_the_cut
    job.thaw(frozen)
    assert job.finish() == 0
    assert job.log() == undisturbed


@pytest.fixture(autouse=True)
def clean(nodes: tuple[Node, Node]) -> object:
    yield
    for name in ("images", "copy"):
        shutil.rmtree(nodes[0].disk / name, ignore_errors=True)


@pytest.mark.parametrize("make", [Shadow, copied])
def test_what_is_restored_is_the_cut_and_what_runs_on_is_not_disturbed(
    new_job: Callable[..., Job], make: Callable[[], Pages]
) -> None:
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "64", "60"])
    job.wait_for("step 20")
    frozen = job.freeze()
    shadow = dump(job, make())
    copy_home(job)
    at_the_cut = job.log()
    assert "pages-2.img" not in {path.name for path in (job.node.disk / "images").iterdir()}
    job.thaw(frozen)
    job.wait_for("step 40")
    assert store(job, shadow) > 64 << 20
    ends_alike(job, frozen, at_the_cut)


@pytest.mark.parametrize("make", [Shadow, copied])
def test_a_tree_of_processes_and_what_its_children_do_not_get(
    new_job: Callable[..., Job], make: Callable[[], Pages]
) -> None:
    job = new_job()
    job.start([sys.executable, "-c", TREE + SUMS])
    while job.log().count("ready") < 2:
        time.sleep(0.01)
    time.sleep(0.2)
    before = len(launch.processes(job.processes[0]))
    frozen = job.freeze()
    shadow = dump(job, make())
    copy_home(job)
    assert len(launch.processes(job.processes[0])) == before + (2 if make is Shadow else 0)
    job.thaw(frozen)
    (job.outside / "work" / "close").touch()
    job.wait_for("closed")  # the copies do not hold the pipe open
    job.wait_for("waits for (0, 0)")  # and no process sees any as its child
    assert store(job, shadow) > 60 << 20
    assert len(launch.processes(job.processes[0])) == before, "nothing is left of them"
    restore(job)
    job.thaw(frozen)
    (job.outside / "work" / "go").touch()
    assert job.finish() == 0, job.log()
    assert "whole True 0 b'k' b'k' True" in job.log()


def test_a_shadow_ends_with_the_job(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "64", "100000"])
    job.wait_for("step 5")
    frozen = job.freeze()
    shadow = dump(job)
    job.thaw(frozen)
    with pytest.raises(TooSlow):
        job.node.do(lambda: shadow.write(IMAGES, time.monotonic()))
    job.kill()
    with pytest.raises(OSError, match="is gone"):
        job.node.do(lambda: shadow.write(IMAGES, time.monotonic() + 60))
    shadow.drop()
    shadow.drop()


def test_without_one_all_of_it_is_dumped(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel, or a limit of the job's, permits no copies."""

    def fails(*_: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(ptrace.Tracee, "copy", fails)
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "16", "30"])
    job.wait_for("step 5")
    frozen = job.freeze()
    shadow = dump(job)
    assert shadow.sizes == {}
    copy_home(job)
    at_the_cut = job.log()
    shadow.drop()
    job.thaw(frozen)
    ends_alike(job, frozen, at_the_cut)


@pytest.mark.parametrize("make", [Shadow, copied])
def test_what_could_not_be_taken_is_dumped_by_criu(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, make: Callable[[], Pages]
) -> None:
    """All of it, and nothing is left of what was taken before that."""
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "16", "100000"])
    job.wait_for("step 5")
    found = pages_module.hidden

    def one_is_gone(images: Path, pids: list[int]) -> list[PageFile]:
        files = found(images, pids)
        return [files[0], replace(files[1], pid=1 << 30)]

    monkeypatch.setattr("midstep.agent.drivers.criu.hidden", one_is_gone)
    job.freeze()
    pages = dump(job, make())
    assert pages.sizes == {}
    assert job.node.do(lambda: pages.write(IMAGES, time.monotonic())) == 0
    pages.drop()
    files = sorted((job.node.disk / "images").glob("pages-*.img"))
    assert len(files) == 2 and sum(path.stat().st_size for path in files) > 16 << 20


@pytest.mark.parametrize("numbers", [{1}, {1, 2, 3}])
def test_where_criu_numbers_its_files_otherwise(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, numbers: set[int]
) -> None:
    """It is dumped once more, as it numbered them the first time."""
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "16", "30"])
    job.wait_for("step 5")
    monkeypatch.setattr("midstep.agent.drivers.criu.hideable", lambda p: numbers)
    frozen = job.freeze()
    shadow = dump(job)
    copy_home(job)
    at_the_cut = job.log()
    assert list(shadow.sizes) == ["pages-2.img"], "what is small is there at once"
    job.thaw(frozen)
    store(job, shadow)
    ends_alike(job, frozen, at_the_cut)


def test_a_buffer_is_used_again_where_it_is_large_enough_and_not_much_too_large() -> None:
    buffers = Buffers()
    large, small = buffers.take(1 << 22), buffers.take(1 << 16)
    assert len(large.memory) >= 1 << 22
    for buffer in (small, large):
        buffers.give_back(buffer)
    assert buffers.take(1 << 20) is not large, "it is for larger ones"
    assert buffers.take(3 << 20) is large
    assert buffers.take(3 << 20) is not large, "it is in use"
    assert buffers.take(1 << 16) is small
