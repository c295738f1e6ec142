"""Start a rank in its cell. `follow` has what comes afterwards; its names are here, too.

PID 1 of a rank's namespace is a small shell that waits for the command and writes its status to
CELL/run/exit-RANK; it also reaps what the command leaves behind. It is root's, as CRIU requires of a PID 1
when the node's /proc is in view; the command runs as the job's user. Nothing of ours stands above it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from midstep.agent.drivers import kernel
from midstep.agent.drivers.cell import CELL, Home, enter_new_cell
from midstep.agent.drivers.errors import CommandNotFound
from midstep.agent.drivers.follow import (
    RankProcess,
    alive,
    children,
    exit_status,
    find_main,
    inner_pid,
    kill,
    process_at,
    processes,
    stat_of,
)
from midstep.agent.drivers.procfs import mount_proc

_NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWTIME | kernel.CLONE_NEWIPC
# The first line waits until /proc is the rank's own; an agent that died in between closes the pipe, and
# nothing is started. The command runs in the foreground: in the background a shell would have it ignore
# SIGINT.
_INIT = """\
read -r go || exit 125
exec </dev/null
exit_file=$1; shift
(cd ../../work && unset OLDPWD && exec "$@")
status=$?
echo $status >"$exit_file.part" && mv -f "$exit_file.part" "$exit_file"
exit $status
"""
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class RankLaunch:
    job_id: str
    rank: int
    argv: tuple[str, ...]
    env: dict[str, str]  # all of the environment; nothing of the agent's own is added
    uid: int
    gid: int
    cpus: tuple[int, ...]
    home: Home
    passthrough: tuple[str, ...]


def launch(rank: RankLaunch) -> RankProcess:
    """Start a rank. CommandNotFound before anything runs; NoRights where namespaces are refused."""
    return kernel.apart(lambda: _launch_here(rank), f"launch-{rank.job_id}-{rank.rank}")


def _launch_here(rank: RankLaunch) -> RankProcess:
    enter_new_cell(rank.home, rank.passthrough)
    program = _find_program(rank)
    exit_file = CELL / "run" / f"exit-{rank.rank}"
    exit_file.unlink(missing_ok=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.sched_setaffinity(0, rank.cpus)
    kernel.personality(kernel.ADDR_NO_RANDOMIZE)
    log = os.open(CELL / "logs" / f"rank-{rank.rank}.log", _LOG_FLAGS, 0o644)
    try:
        os.fchown(log, rank.uid, rank.gid)
        kernel.unshare(_NAMESPACES)
        command = [*_as_user(rank), program, *rank.argv[1:]]
        return _start(rank, ["/bin/sh", "-c", _INIT, "midstep-init", str(exit_file), *command], log)
    finally:
        os.close(log)


def _start(rank: RankLaunch, command: list[str], log: int) -> RankProcess:
    """Start PID 1 in the namespaces that this thread has prepared, give it its /proc, and let it go."""
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=rank.env, cwd=_own_folder(rank),
        umask=0o022, start_new_session=True,
    )  # fmt: skip
    assert child.stdin is not None
    try:
        process = process_at(rank.rank, child.pid)
        mount_proc()  # from here on this thread cannot see the node's processes
        child.stdin.write(b"go\n")
        child.stdin.close()
    except BaseException:
        child.kill()
        child.wait()
        raise
    # `alive` looks after it from here on; without this, Popen would complain that nobody waited.
    child.returncode = 0
    return process


def _own_folder(rank: RankLaunch) -> Path:
    """Where PID 1 stands: CRIU makes a folder there for an instant, which dumps of two ranks must not do in
    one place.
    """
    folder = CELL / "run" / f"init-{rank.rank}"
    folder.mkdir(exist_ok=True)
    return folder


def _find_program(rank: RankLaunch) -> str:
    path = rank.env.get("PATH", os.defpath)
    if program := shutil.which(rank.argv[0], path=path):
        return program
    where = "the working folder" if "/" in rank.argv[0] else f"PATH ({path})"
    raise CommandNotFound(f"rank {rank.rank}: no program {rank.argv[0]!r} that can be run, in {where}")


def _as_user(rank: RankLaunch) -> list[str]:
    if rank.uid == 0:
        return []
    try:
        groups = os.getgrouplist(pwd.getpwuid(rank.uid).pw_name, rank.gid)
    except KeyError:
        groups = [rank.gid]
    numbers = ",".join(map(str, groups))
    return [
        "setpriv",
        f"--reuid={rank.uid}",
        f"--regid={rank.gid}",
        f"--groups={numbers}",
        "--inh-caps=-all",
        "--",
    ]


__all__ = [
    "RankLaunch",
    "RankProcess",
    "alive",
    "children",
    "exit_status",
    "find_main",
    "inner_pid",
    "kill",
    "launch",
    "process_at",
    "processes",
    "stat_of",
]
