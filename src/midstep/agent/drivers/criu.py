"""Dump a frozen rank with CRIU, and restore it in another cell.

CRIU runs inside the rank's own mounts, so that it has no mount namespace to describe; it is started there
directly (see `kernel`). Ranks are stopped before and after both: they go on when `freeze.thaw` is called
for all ranks of the job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from midstep.agent.drivers import kernel, lent_names, second_stop
from midstep.agent.drivers.cell import Home, enter_new_cell
from midstep.agent.drivers.criu_images import DumpTimes, dump_times, ghost_names
from midstep.agent.drivers.errors import DriverError, RankGone, Refused, TooSlow
from midstep.agent.drivers.explain import explain
from midstep.agent.drivers.follow import RankProcess, alive, children, inner_pid, process_at, processes
from midstep.agent.drivers.outside import inspect
from midstep.agent.drivers.pages import Pages, Unhidden, hidden, hide, hideable
from midstep.agent.drivers.procfs import enter_with_node_proc, give_own_proc
from midstep.agent.drivers.trees import copy_tree
from midstep.agent.drivers.turns import Turns

# Both ways: deleted files go into the images (the largest limit that CRIU can hold), files that lost their
# name but have others get one for the time being, connections to outside are cut, and control groups are
# the agent's business.
_COMMON = (
    "-v2", "--leave-stopped", "--link-remap", "--tcp-close", "--file-locks", "--ext-unix-sk",
    "--ghost-limit", "4095M",
    "--manage-cgroups=ignore", "--network-lock", "skip",
)  # fmt: skip
_log = logging.getLogger(__name__)
_PID_FILE = "restored.pid"
_HALFWAY_S = 0.5
_FAILS_S = 5.0
_TRIES = 2
# CRIU lends files names that are unique in a rank, not in the home that it shares: one such rank at a time.
_lending = threading.Lock()
# It makes deleted files anew under names that are unique in a rank, too.
_deleted = Turns()


@dataclass(frozen=True, slots=True)
class Dumped:
    bytes: int
    duration_s: float
    times: DumpTimes
    outside: tuple[str, ...]  # files that the rank may write to and that are not carried with it


@dataclass(frozen=True, slots=True)
class RestoreSpec:
    rank: int
    home: Home
    cpus: tuple[int, ...]
    passthrough: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Criu:
    path: Path

    def dump(self, p: RankProcess, images: Path, deadline_s: float, pages: Pages | None = None) -> Dumped:
        """Write the images of a frozen rank; ``pages`` take most of its memory, if they can.

        Refused, TooSlow: nothing is left in `images`, and the rank is as it was; thaw it before the next try.
        """
        images.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        if not alive(p):
            raise RankGone(f"rank {p.rank} (pid {p.init_pid}) has ended")
        try:
            pids = processes(p)
            found = inspect(p.init_pid, pids)
            with _lending if found.nameless else contextlib.nullcontext():
                if pages is None or not self._dump_hidden(p, images, pids, deadline_s, pages):
                    self._dump_apart(p, images, pids, deadline_s)
                lent_names.make_own(p, images)
        except BaseException:
            lent_names.drop(p, images)
            _clear(images)
            raise
        nbytes = sum(file.stat().st_size for file in images.iterdir())
        nbytes += sum(pages.sizes.values()) if pages else 0
        return Dumped(nbytes, time.monotonic() - begun, dump_times(images), found.written)

    def restore(self, images: Path, spec: RestoreSpec, deadline_s: float) -> RankProcess:
        """Make the rank again, stopped, in a new cell over `spec.home`. Refused, TooSlow: nothing of it is
        left running.
        """
        (images / _PID_FILE).unlink(missing_ok=True)
        with _deleted.take(ghost_names(images)):
            p = kernel.apart(lambda: self._restore(images, spec, deadline_s), f"restore-{spec.rank}")
        give_own_proc(p.init_pid)
        return p

    def _dump_hidden(
        self, p: RankProcess, images: Path, pids: list[int], deadline_s: float, pages: Pages
    ) -> bool:
        """False: it has to be done as ever."""
        numbers = hideable(p)
        for _ in range(_TRIES if numbers else 0):
            hide(images, numbers)
            self._dump_apart(p, images, pids, deadline_s)
            try:
                pages.take(p, images, hidden(images, pids))
                return True
            except (Unhidden, OSError) as error:
                _log.warning("rank %d: all of it is dumped: %s", p.rank, error)
                lent_names.drop(p, images)
                _clear(images)
                if not isinstance(error, Unhidden):
                    break
                numbers = error.numbers
        return False

    def _dump_apart(self, p: RankProcess, images: Path, pids: list[int], deadline_s: float) -> None:
        second_stop.drop(pids)
        kernel.apart(partial(self._dump, p, images, deadline_s), f"dump-{p.rank}")

    def _dump(self, p: RankProcess, images: Path, deadline_s: float) -> None:
        with _folder(images) as fd:
            enter_with_node_proc(p.init_pid)
            try:
                command = ("dump", "-t", str(p.init_pid), "--timeout", str(max(1, round(deadline_s))))
                self._run(command, fd, deadline_s, f"dump rank {p.rank}", p.init_pid)
            finally:
                kernel.unmount("/proc")

    def _restore(self, images: Path, spec: RestoreSpec, deadline_s: float) -> RankProcess:
        with _folder(images) as fd:
            enter_new_cell(spec.home, spec.passthrough)
            command = ("restore", "-d", "--pidfile", _PID_FILE)
            self._run(command, fd, deadline_s, f"restore rank {spec.rank}")
            p = process_at(spec.rank, int(Path(f"/proc/self/fd/{fd}/{_PID_FILE}").read_text()))
        for pid in processes(p):
            _set_cpus(pid, spec.cpus)
        return p

    def _run(
        self, command: Sequence[str], images_fd: int, deadline_s: float, doing: str, dumped_pid: int = 0
    ) -> None:
        full = [str(self.path), command[0], "-D", f"/proc/self/fd/{images_fd}", *command[1:], *_COMMON]
        # The log goes to memory: on a full disk it is wanted most.
        with os.fdopen(os.memfd_create("criu-log"), "r+b") as log:
            try:
                child = subprocess.Popen(
                    full,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(images_fd,),
                    start_new_session=True,
                    restore_signals=not dumped_pid,  # SIGXFSZ stays ignored: `_let_fail`
                )
            except OSError as error:
                raise DriverError(
                    f"CRIU cannot be started ({self.path}: {error.strerror}); see `midstep doctor`"
                ) from error
            try:
                code = _ended(child, deadline_s)
            except subprocess.TimeoutExpired:
                _stop(child, dumped_pid)
                raise TooSlow(f"CRIU did not {doing} within {deadline_s:g} s and was stopped") from None
            if code:
                log.seek(0)
                raise Refused(explain(log.read().decode(errors="replace")))


def _ended(criu: subprocess.Popen[bytes], deadline_s: float) -> int:
    """As its ``wait``, which would sleep for up to 50 ms when it has ended already. TimeoutExpired."""
    handle = os.pidfd_open(criu.pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll(deadline_s * 1e3)
    finally:
        os.close(handle)
    return criu.wait(0)


def _stop(criu: subprocess.Popen[bytes], dumped_pid: int) -> None:
    """End CRIU. A rank that it was dumping is rid of CRIU's code; one that it was restoring dies."""
    if dumped_pid and _let_fail(criu):
        return
    end = time.monotonic() + _HALFWAY_S
    while _is_halfway(dumped_pid) and time.monotonic() < end:
        time.sleep(0.001)
    begun = [pid for pid in children(criu.pid) if inner_pid(pid) == 1]
    criu.kill()
    criu.wait()
    for pid in begun:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _let_fail(criu: subprocess.Popen[bytes]) -> bool:
    """Have it give up as on a full disk: it may write no more. Killed while a rank executes what CRIU has put
    there, the rank would die with it. Whether it has ended."""
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(criu.pid, resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(subprocess.TimeoutExpired):
        criu.wait(_FAILS_S)
    return criu.returncode is not None


def _is_halfway(init_pid: int) -> bool:
    """For an instant of a dump, PID 1 holds CRIU's own mount of /proc (its root: "/"), and would keep it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return "/" in {os.readlink(f"/proc/{init_pid}/fd/{n}") for n in os.listdir(f"/proc/{init_pid}/fd")}
    return False


class _folder:
    """A folder held open: it can be named through /proc/self/fd from any mount namespace."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _clear(images: Path) -> None:
    for file in images.iterdir():
        file.unlink()


def _set_cpus(pid: int, cpus: Sequence[int]) -> None:
    """CRIU does not restore affinity: every thread would keep CRIU's own."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), cpus)


__all__ = ["Criu", "Dumped", "RestoreSpec", "copy_tree"]
