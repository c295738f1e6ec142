"""Ranks are asked to end a step and to give back freed memory before they are dumped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from midstep.mailbox.meter import Meter, Word
from midstep.proxy import lighten as lighten_module
from midstep.proxy.lighten import lighten

# A heap with 64 MiB that were freed in pieces too small to be given back at once, under one that is not.
STEPPING = """
import sys, time
from midstep.runtime.metering import stepped
pieces = [bytearray(60_000) for _ in range(1000)]
last = bytearray(60_000)
del pieces
stepped()
print("ready", flush=True)
while sys.argv[1] == "steps":
    time.sleep(0.002)
    stepped()
time.sleep(100)
"""


@contextmanager
def process(kind: str) -> Generator[int]:
    child = subprocess.Popen([sys.executable, "-c", STEPPING, kind], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_process_that_makes_steps_is_ready_and_lighter() -> None:
    ready: list[int] = []
    with process("steps") as pid:
        before = resident_bytes(pid)
        assert lighten([pid], ready.append, wait_s=60) == 1
        assert ready == [pid]
        assert resident_bytes(pid) < before - (30 << 20)
        assert lighten([pid], ready.append, wait_s=60) == 1, "and again"
        assert ready == [pid, pid]


def test_one_that_makes_no_steps_is_not_waited_for_for_ever() -> None:
    ready: list[int] = []
    with process("stands still") as pid:
        assert lighten([pid], ready.append, wait_s=0.05) == 1
    assert not ready


def test_processes_without_steps_are_left_alone() -> None:
    ready: list[int] = []
    assert lighten([os.getpid()], ready.append, wait_s=60) == 0
    assert not ready


# Says what it holds: gradients (1), activations (2), both or nothing.
TRAINING = """
import sys, time, mmap, os
from midstep.runtime.metering import stepped, zeroed
order = sys.argv[1]
holds = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 8)
def spend(held, s=0.004):
    holds[0] = held
    time.sleep(s)
print("ready", flush=True)
while True:
    if order == "zero, forward":
        holds[0] = 0
        zeroed()
        spend(2)
    else:
        spend(3)
        zeroed()
        holds[0] = 2
    spend(3, 0.008)  # backward
    holds[0] = 1
    stepped()
"""


@pytest.mark.parametrize(("order", "holds"), [("zero, forward", 0), ("forward, zero", 1)])
def test_a_process_stands_still_where_there_is_least(order: str, holds: int, tmp_path: Path) -> None:
    """Right after gradients have gone, or with gradients but without activations."""
    page = tmp_path / "holds"
    page.write_bytes(bytes(8))
    child = subprocess.Popen([sys.executable, "-c", TRAINING, order, page], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        found: list[int] = []

        def ready(pid: int) -> None:
            time.sleep(0.005)
            found.append(page.read_bytes()[0])

        for _ in range(3):
            lighten([child.pid], ready, wait_s=60)
        assert found == [holds] * 3
    finally:
        child.kill()
        child.communicate()


def test_all_end_the_same_step() -> None:
    """One may have made a step that the others are still in when they are asked: it must not go ahead."""
    metered = [Meter() for _ in range(3)]
    try:
        for page, steps in zip(metered, (7, 8, 3)):
            page.words[Word.STEPS] = steps
        lighten_module._ask([metered[:2], metered[2:]])  # pyright: ignore[reportPrivateUsage]
        assert [page.words[Word.LIGHTEN] for page in metered] == [9, 9, 4], "the third trains for itself"
        assert not any(map(lighten_module._has_missed, metered))  # pyright: ignore[reportPrivateUsage]
        metered[1].words[Word.STEPS] = 10
        assert lighten_module._has_missed(metered[1])  # pyright: ignore[reportPrivateUsage]
    finally:
        for page in metered:
            page.close()


FORKING = """
import os, sys
from midstep.runtime.metering import stepped
pieces = [bytearray(60_000) for _ in range(1000)]
last = bytearray(60_000)
if sys.argv[1] == "steps":
    stepped()
del pieces
child = os.fork()
if child == 0:
    pages = int(open("/proc/self/statm").read().split()[1])
    print(pages * os.sysconf("SC_PAGE_SIZE"), len(last), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def resident_in_fork(kind: str) -> int:
    done = subprocess.run([sys.executable, "-c", FORKING, kind], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_a_worker_does_not_keep_what_its_parent_had_freed() -> None:
    assert resident_in_fork("waits") - resident_in_fork("steps") > 50_000_000
