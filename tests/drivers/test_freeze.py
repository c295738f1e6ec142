"""Freezing stops everything, remembers what was stopped before, and can be undone by whoever comes after."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from midstep.agent.drivers import freeze, launch
from midstep.agent.drivers.errors import RankGone
from midstep.agent.drivers.freeze import Frozen
from tests.drivers.nodes import Job

FORKS = """
import os, subprocess
print('ready', flush=True)
while True:
    subprocess.run(['true'])
    os.fork() or os._exit(0)
    os.wait()
"""
STOPS = """
import os, signal, subprocess, time
p = subprocess.Popen(['sleep', '99'])
p.send_signal(signal.SIGSTOP)
os.waitpid(p.pid, os.WUNTRACED)
print('ready', flush=True)
time.sleep(99)
"""


def states(job: Job) -> list[str]:
    found: list[str] = []
    for p in job.processes.values():
        for pid in launch.processes(p):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += [launch.stat_of(f"{task}/stat")[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return found


def test_four_busy_ranks_stop_and_go_on(new_job: Callable[..., Job]) -> None:
    job = new_job()
    for rank in range(4):
        job.start([sys.executable, "-c", FORKS], rank=rank)
    for rank in range(4):
        job.wait_for("ready", rank)
    for _ in range(10):
        frozen = job.freeze()
        assert set(states(job)) <= set("TZX")
        assert set(frozen.stopped_before) == {0, 1, 2, 3}
        assert not any(frozen.stopped_before.values())
        job.thaw(frozen)
        time.sleep(0.02)
        assert not set(states(job)) <= set("T")


def test_what_the_job_stopped_stays_stopped(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start([sys.executable, "-c", STOPS])
    job.wait_for("ready")
    frozen = job.freeze()
    assert len(frozen.stopped_before[0]) == 1
    again = freeze.freeze(list(job.processes.values()), 5)  # as an agent does that has died in the first
    assert again.stopped_before == frozen.stopped_before
    job.thaw(Frozen.from_json(again.to_json()))
    time.sleep(0.05)
    assert states(job).count("T") == 1


def test_a_rank_that_has_ended(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start(["sleep", "99"], rank=0)
    job.start(["true"], rank=1)
    job.finish(1)
    with pytest.raises(RankGone):
        job.freeze()
    time.sleep(0.05)
    assert "T" not in states(job)


def test_a_shell_with_job_control_sees_nothing(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start(["bash", "-mc", "echo ready; sleep 0.6; echo slept $?; sleep 0.2 | cat; echo done"])
    job.wait_for("ready")
    time.sleep(0.1)
    for _ in range(5):
        frozen = job.freeze()
        time.sleep(0.02)
        job.thaw(frozen)
        time.sleep(0.02)
    assert job.finish() == 0
    assert job.log().endswith("ready\nslept 0\ndone\n")
