"""Processes that outlive whoever started them: known by number, start time and boot, never by number
alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot. ``start`` is in clock ticks since boot."""

    pid: int
    start: int
    boot: str

    @property
    def alive(self) -> bool:
        """It runs, or is stopped; a zombie is gone."""
        return self == identify(self.pid)


def identify(pid: int) -> Identity | None:
    """The process that has this number now; None: there is none, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return Identity(pid, int(fields[19]), BOOT_ID.read_text().strip())


def save(identity: Identity, path: Path) -> None:
    """Write a process file, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(identity)))
    partial.replace(path)


def load(path: Path) -> Identity | None:
    """The process of a process file if it still runs, else None."""
    try:
        identity = Identity(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return identity if identity.alive else None


def spawn(
    argv: Sequence[str], pid_file: Path, log: Path | None, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a process in a session of its own. Its process file is there before its program runs, so that
    whoever comes after us finds it even if we are killed right now. With ``log`` None its standard output is
    a pipe."""

    def announce() -> None:
        own = identify(os.getpid())
        if own is not None:
            save(own, pid_file)

    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("a")) if log is not None else None
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=out if out is not None else subprocess.PIPE,
            stderr=out if out is not None else subprocess.STDOUT,
            env=env,
            text=True,
            cwd="/",
            start_new_session=True,
            preexec_fn=announce,  # safe: the caller has one thread
        )


def send(identity: Identity, number: signal.Signals) -> None:
    """Signal a process if it is still the same one. Safe against reuse of its number."""
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return
    try:
        if identity.alive:
            signal.pidfd_send_signal(handle, number)
    except OSError:
        pass
    finally:
        os.close(handle)


def stop(identities: Iterable[Identity], grace_s: float) -> None:
    """End processes: asked first (SIGTERM), after ``grace_s`` without asking. Returns when all are gone."""
    pending = [i for i in identities if i.alive]
    for identity in pending:
        send(identity, signal.SIGTERM)
    if not wait_gone(pending, grace_s):
        kill(pending)


def kill(identities: Iterable[Identity], timeout_s: float = 10.0) -> bool:
    """SIGKILL and wait. False: some are still there (blocked in the kernel)."""
    pending = list(identities)
    for identity in pending:
        send(identity, signal.SIGKILL)
    return wait_gone(pending, timeout_s)


def wait_gone(identities: Iterable[Identity], timeout_s: float) -> bool:
    """Wait until none is alive. False: it took too long."""
    pending = list(identities)
    return wait_for(lambda: not any(i.alive for i in pending), timeout_s)


def wait_for(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.02) -> bool:
    """Poll a condition. False: it took too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def every_pid() -> list[int]:
    """All process numbers of this machine, now."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def with_argument(argument: str) -> list[Identity]:
    """All processes one of whose arguments is exactly this: finds ours when their process files are lost."""
    wanted = argument.encode()
    found: list[Identity] = []
    for pid in every_pid():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        identity = identify(pid) if wanted in words and pid != os.getpid() else None
        if identity is not None:
            found.append(identity)
    return found
