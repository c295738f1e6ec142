"""What a rank finds when it starts, and how it is followed, killed, and known again."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

import pytest

from midstep.agent.drivers import launch
from midstep.agent.drivers.errors import CommandNotFound, RankGone
from midstep.agent.drivers.launch import RankProcess
from tests.drivers.nodes import Job

LOOK = """
import json, os, signal
fds = {}
for n in os.listdir('/proc/self/fd'):
    try: fds[int(n)] = os.readlink('/proc/self/fd/' + n)
    except OSError: pass
print(json.dumps({
    'pid': os.getpid(), 'sid': os.getsid(0), 'fds': fds, 'cwd': os.getcwd(),
    'ids': os.getresuid() + os.getresgid(), 'umask': os.umask(0), 'env': sorted(os.environ),
    'cpus': sorted(os.sched_getaffinity(0)), 'int': str(signal.getsignal(signal.SIGINT)),
    'personality': open('/proc/self/personality').read().strip(),
    'procs': sorted(int(p) for p in os.listdir('/proc') if p.isdigit()),
    'tmp': sorted(os.listdir('/tmp')), 'shm': os.stat('/dev/shm').st_mode,
}))
"""


def test_a_rank_sees_a_clean_world(new_job: Callable[..., Job]) -> None:
    job = new_job(cpus=(0,))
    job.start([sys.executable, "-c", LOOK])
    assert job.finish() == 0, job.log()
    seen = json.loads(job.log())
    log = "/run/midstep/cell/logs/rank-0.log"
    assert {n: seen["fds"][n] for n in ("0", "1", "2")} == {"0": "/dev/null", "1": log, "2": log}
    assert len(seen["fds"]) == 3
    assert seen["cwd"] == "/run/midstep/cell/work"
    assert seen["ids"] == [0] * 6
    assert seen["umask"] == 0o022
    by_shell_and_python = {"PWD", "OLDPWD", "LC_CTYPE"}
    assert set(seen["env"]) - by_shell_and_python == {"PATH", "PYTHONHASHSEED", "RANK"}
    assert seen["cpus"] == [0]
    assert "default_int_handler" in seen["int"], "SIGINT must not be ignored"
    assert seen["personality"] == "00040000"
    assert seen["procs"] == [1, seen["pid"]]
    assert seen["sid"] == 1
    assert oct(seen["shm"]) == "0o41777"
    assert set(seen["tmp"]) == set(job.passthrough)


def test_another_user(new_job: Callable[..., Job]) -> None:
    job = new_job(uid=12345)
    job.start(
        [
            "sh",
            "-c",
            "id -u; id -g; id -G; echo x > made; touch /tmp/t /dev/shm/s; grep CapEff /proc/self/status",
        ]
    )
    assert job.finish() == 0, job.log()
    assert job.log().split() == ["12345", "12345", "12345", "CapEff:", "0" * 16]
    assert (job.outside / "work" / "made").stat().st_uid == 12345


def test_exit_statuses(new_job: Callable[..., Job]) -> None:
    job = new_job()
    for rank, (code, status) in enumerate(
        (("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137))
    ):
        job.start(["sh", "-c", code], rank=rank)
        assert job.finish(rank) == status
        assert not launch.processes(job.processes[rank])


def test_an_unknown_command_is_said_before_anything_runs(new_job: Callable[..., Job]) -> None:
    job = new_job()
    for command in ("no-such-program", "./not-here.sh", "/etc/passwd"):
        with pytest.raises(CommandNotFound, match=command):
            job.start([command])
    assert job.processes == {}


def test_a_script_in_the_working_folder_is_found(new_job: Callable[..., Job]) -> None:
    job = new_job()
    script = job.outside / "work" / "go.sh"
    script.write_text("#!/bin/sh\necho $0 $1\n")
    script.chmod(0o755)
    job.start(["./go.sh", "a b"])
    assert job.finish() == 0
    assert job.log() == "./go.sh a b\n"


def test_kill_leaves_nothing(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start(
        ["sh", "-c", "trap '' TERM; setsid sleep 100 & (sleep 100 & sleep 100) & echo ready; sleep 100"]
    )
    job.wait_for("ready")
    time.sleep(0.1)
    p = job.processes[0]
    pids = launch.processes(p)
    assert len(pids) >= 5
    assert launch.find_main(p) in pids
    launch.kill(p)
    assert not launch.alive(p)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert launch.exit_status(job.home, 0) is None
    launch.kill(p)


def test_what_the_command_leaves_behind_dies_with_it(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start(["sh", "-c", "setsid sleep 100 & echo ready; exec sleep 0.3"])
    job.wait_for("ready")
    pids = launch.processes(job.processes[0])
    assert job.finish() == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_recycled_pid_is_not_mistaken(new_job: Callable[..., Job]) -> None:
    p = RankProcess(0, os.getpid(), 1)
    assert not launch.alive(p)
    assert launch.processes(p) == []
    with pytest.raises(RankGone):
        launch.process_at(0, 1 << 22)
