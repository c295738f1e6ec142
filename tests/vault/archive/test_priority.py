"""An archiver is given its share when somebody waits, all its threads and processes, also later ones."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from midstep.vault.archive.priority import hasten
from tests.vault.archive.harness import SOURCE

_IOPRIO_GET = {"x86_64": 252, "aarch64": 31}
_PROGRAM = """
import os, subprocess, sys, threading
from midstep.vault.archive.priority import be_modest, in_nobodys_way

def say():
    print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)

be_modest()
wait = threading.Event()
threading.Thread(target=wait.wait, daemon=True).start()
helper = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # ends with us
asked = threading.Event()
with in_nobodys_way(asked.is_set, every_s=0.01):
    say()
    asked.set()
    while os.getpriority(os.PRIO_PROCESS, 0):
        pass
    say()
say()
sys.stdin.readline()
threading.Thread(target=say).start()
sys.stdin.readline()
os._exit(0)
"""


def nices(pid: int) -> set[int]:
    """Of its threads and of its children."""
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    assert children
    return {
        os.getpriority(os.PRIO_PROCESS, int(number)) for number in (*(it.name for it in tasks), *children)
    }


def session_nice(pid: int) -> int | None:
    """None: this kernel does not schedule by session."""
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().rsplit(" ", 1)[1])
    except OSError:
        return None


def io_class(pid: int) -> int:
    return ctypes.CDLL(None).syscall(_IOPRIO_GET[os.uname().machine], 1, pid) >> 13


@pytest.mark.skipif(os.geteuid() != 0, reason="raising a priority needs root")
def test_hastened() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "19\n", "it keeps writers out, and none is there"
        assert process.stdout.readline() == "0\n", "one waits"
        assert process.stdout.readline() == "19\n"
        assert nices(process.pid) == {19} and io_class(process.pid) == 3
        assert os.getsid(process.pid) == process.pid and session_nice(process.pid) in (19, None)
        hasten(process.pid)
        assert nices(process.pid) == {0} and io_class(process.pid) == 0
        assert session_nice(process.pid) in (0, None)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "0\n", "a thread that it has started since"


def test_nobody_there_is_harmless() -> None:
    hasten(2**22 + 1)
