"""Writers and the collector keep out of each other's way, without trusting a clock or a list.

    leases/writer-TOKEN   a writer is at work: it may rely on any chunk that an index names
    leases/collector      a collector is at work: no writer begins
    sweep                 replaced at the start of every collection
    waiting               a writer has found a collector at work: it had better be quick

A writer puts its lease, then looks for a collector; a collector puts its own, then looks for writers: at most
one of them goes on. A lease whose holder is dead (this machine, another boot, or no such process) is void at
once; of another machine's holder only after LEASE_S without renewal. A thread renews it, so a transfer may be
as slow as it likes. Should a clock jump, or a holder stand still for that long, a live lease may be taken for
a void one. Therefore a writer looks at its end whether its lease is still there and `sweep` is what it was
(`undisturbed`); if not, it makes sure that every chunk is there before anybody hears of its snapshot.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from midstep.env import Clock, Ids
from midstep.vault.backends.base import Backend
from midstep.vault.errors import BackendError, Busy, LeaseLost, ObjectExists, ObjectMissing

LEASE_S = 300.0
RENEW_S = 30.0
_FOLDER, _COLLECTOR, _SWEEP, _WAITING = "leases", "leases/collector", "sweep", "waiting"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease: a process. ``host``: its machine's name and PID namespace; ``renewed_s``: seconds
    since 1970 by its machine's clock."""

    token: str
    host: str
    boot: str
    pid: int
    started: int  # as in /proc/PID/stat: tells it from a later process of the same number
    renewed_s: float

    @property
    def numbers(self) -> str:
        """What its process number is a number of: a PID namespace."""
        return self.host.rpartition(" ")[2]

    @property
    def words(self) -> str:
        """For messages."""
        return f"process {self.pid} of {self.host}"


class Lease:
    """A writer's, held while its context lasts. LeaseLost, Busy."""

    def __init__(self, backend: Backend, clock: Clock, ids: Ids) -> None:
        self._backend, self._clock = backend, clock
        self._holder = myself(ids.token(), clock)
        self._name = f"{_FOLDER}/writer-{self._holder.token}"
        self._renewed_s = clock.monotonic_s()
        self._ended = threading.Event()
        self._renewing = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="vault-lease", daemon=True)
        self.sweep = b""  # the last collection before this lease

    def __enter__(self) -> Lease:
        self._backend.put(self._name, _encode(self._holder))
        try:
            if (other := collector(self._backend)) is not None and not is_void(other, self._clock):
                self._backend.put(_WAITING, self._holder.token.encode())
                raise Busy(f"{self._backend.describe()} is being collected by {other.words}: try again later")
        except BaseException:
            self._backend.delete(self._name)
            raise
        self.sweep = _get(self._backend, _SWEEP)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()  # it must not put the lease again
        self._backend.delete(self._name)

    def renew(self) -> None:
        """Say that the work goes on. LeaseLost: a collector has taken us for dead."""
        with self._renewing:
            now_s = self._clock.monotonic_s()
            if now_s - self._renewed_s < RENEW_S:
                return
            self._renewed_s = now_s
            self._renew()

    def _keep(self) -> None:
        """Nothing may have to be written for a while: the other side is slow, or the processor is taken."""
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(LeaseLost, BackendError), self._renewing:  # whoever commits looks again
                self._renewed_s = self._clock.monotonic_s()
                self._renew()

    def _renew(self) -> None:
        if not self.undisturbed():
            raise LeaseLost("a collector took this writer for dead; what it wrote may be gone: start over")
        renewed = replace(self._holder, renewed_s=self._clock.now_s())
        self._backend.put(self._name, _encode(renewed))

    def undisturbed(self) -> bool:
        """No collector has begun since we did, and our lease is there."""
        return bool(_get(self._backend, self._name)) and _get(self._backend, _SWEEP) == self.sweep


@contextmanager
def collecting(backend: Backend, clock: Clock, ids: Ids) -> Generator[None]:
    """Keep writers and other collectors out. Busy: one of them is at work."""
    mine = myself(ids.token(), clock)
    _take(backend, mine, clock)
    try:
        for name, holder in writers(backend):
            if holder is not None and not is_void(holder, clock):
                raise Busy(f"{holder.words} is storing a snapshot in {backend.describe()}: try again later")
            backend.delete(name)
        backend.put(_SWEEP, mine.token.encode())
        backend.delete(_WAITING)
        yield
    finally:
        if (now := collector(backend)) is not None and now.token == mine.token:
            backend.delete(_COLLECTOR)


def collector(backend: Backend) -> Holder | None:
    """Who collects, or died while it did."""
    return _decode(_get(backend, _COLLECTOR))


def awaited(backend: Backend) -> bool:
    """Whether a writer has come since the collector that is at work began."""
    with contextlib.suppress(BackendError):
        return bool(_get(backend, _WAITING))
    return False


def writers(backend: Backend) -> list[tuple[str, Holder | None]]:
    """The writers' leases by name; None: one that cannot be read."""
    names = [info.name for info in backend.list(_FOLDER) if info.name != _COLLECTOR]
    found = ((name, _get(backend, name)) for name in names)
    return [(name, _decode(data)) for name, data in found if data]


def void_leases(backend: Backend, clock: Clock) -> list[str]:
    """Those whose holders write nothing any more; whoever collects removes them."""
    found = [name for name, holder in writers(backend) if holder is None or is_void(holder, clock)]
    killed = (holder := collector(backend)) is not None and is_void(holder, clock)
    return [*found, *([_COLLECTOR] if killed else ())]


def is_void(holder: Holder, clock: Clock) -> bool:
    """Whether it will certainly write nothing any more, or has been silent for LEASE_S."""
    me = myself("", clock)
    if me.boot and (holder.boot, holder.numbers) == (me.boot, me.numbers):  # this machine, by whatever name
        return _started(holder.pid) != holder.started
    if holder.host == me.host:
        return holder.boot != me.boot
    return abs(clock.now_s() - holder.renewed_s) > LEASE_S


def myself(token: str, clock: Clock) -> Holder:
    """This process."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # a PID namespace of its own has other numbers: it counts as another machine
    with contextlib.suppress(OSError):
        host = f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
        return Holder(token, host, boot, os.getpid(), _started(os.getpid()), clock.now_s())
    return Holder(token, socket.gethostname(), boot, os.getpid(), _started(os.getpid()), clock.now_s())


def _take(backend: Backend, mine: Holder, clock: Clock) -> None:
    try:
        backend.create(_COLLECTOR, _encode(mine))
    except ObjectExists:
        other = collector(backend)
        if other is not None and not is_void(other, clock):
            words = f"{backend.describe()} is being collected by {other.words} already"
            raise Busy(f"{words}: try again later") from None
        backend.delete(_COLLECTOR)  # it was killed in the middle
        try:
            backend.create(_COLLECTOR, _encode(mine))
        except ObjectExists:
            raise Busy(f"another collector of {backend.describe()} was faster: try again later") from None


def _started(pid: int) -> int:
    """When a process started, in ticks since the boot; 0: there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _get(backend: Backend, name: str) -> bytes:
    try:
        return backend.get(name)
    except ObjectMissing:
        return b""


def _encode(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _decode(data: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(data)) if data else None
    except (ValueError, TypeError):
        return None
