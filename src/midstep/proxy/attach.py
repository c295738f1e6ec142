"""Finding the mailboxes of the ranks' process trees, and noticing when their owners end.

The truth is what /proc/PID/fd says; the run directories only hint that a scan is due.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence

from midstep.mailbox import meter
from midstep.mailbox.layout import NAME
from midstep.proxy.boxes import Box, NotAMailbox

_log = logging.getLogger(__name__)
_TICK_S = 0.02
_HINTED_S, _UNHINTED_S = 1.0, 0.1  # how often everything is scanned anyway
_LINK, _METER_LINK = f"/memfd:{NAME}", f"/memfd:{meter.NAME}"
Identity = tuple[int, int]


class Scanner:
    """A thread that scans. ``found(box)``, ``lost(box, how)`` and ``metered(rank, pid, page)`` are called
    from it."""

    def __init__(
        self,
        epoch: int,
        run_dirs: Sequence[str],
        found: Callable[[Box], None],
        lost: Callable[[Box, str], None],
        metered: Callable[[int, int, meter.Meter], None] = lambda rank, pid, page: None,
    ) -> None:
        self._epoch = epoch
        self._folders = [os.path.join(folder, "mailboxes") for folder in run_dirs]
        self._found, self._lost, self._metered = found, lost, metered
        self._meters: set[Identity] = set()
        self._trees: dict[int, int] = {}  # rank -> the pid at its root
        self._known: dict[Identity, Box] = {}
        self._owners: dict[int, tuple[Identity, int]] = {}  # pidfd -> mailbox, pid
        self._poll = select.poll()
        self._scans = threading.Lock()
        self._hints: list[int] = []
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="proxy-scan", daemon=True).start()

    def add(self, rank: int, root: int) -> None:
        """Watch a rank's process tree; returns when it was scanned once. Raises ProcessLookupError."""
        os.stat(f"/proc/{root}")
        with self._scans:
            self._trees[rank] = root
            self._scan_tree(rank, root)

    def stop(self) -> None:
        """Scan no more."""
        self._stopped.set()

    def _run(self) -> None:
        idle_s = 0.0
        while not self._stopped.is_set():
            ended = [fd for fd, _ in self._poll.poll(_TICK_S * 1000)]
            idle_s += _TICK_S
            with self._scans:
                for fd in ended:
                    self._ended(fd)
                if self._hinted() or idle_s >= (_HINTED_S if self._folders else _UNHINTED_S):
                    idle_s = 0.0
                    for rank, root in self._trees.items():
                        self._scan_tree(rank, root)
            if not self._owners:
                self._stopped.wait(_TICK_S)

    def _hinted(self) -> bool:
        hints = [_changed_ns(folder) for folder in self._folders]
        if hints == self._hints:
            return False
        self._hints = hints
        return True

    def _scan_tree(self, rank: int, root: int) -> None:
        for pid in tree(root):
            for path, identity, is_meter in _ours(pid):
                if is_meter:
                    if identity not in self._meters:
                        self._open_meter(rank, pid, path, identity)
                elif identity not in self._known:
                    self._open(rank, pid, path, identity)

    def _open_meter(self, rank: int, pid: int, path: str, identity: Identity) -> None:
        """A process's count of its steps; a child's descriptor of its parent's is left alone."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        try:
            page = meter.Meter(fd)
        except (meter.NotAMeter, OSError, ValueError) as reason:
            _log.debug("%s is not taken: %s", path, reason)
            os.close(fd)
            return
        if page.pid != _own_pid(pid):
            page.close()
            return
        self._meters.add(identity)
        self._metered(rank, pid, page)

    def _open(self, rank: int, pid: int, path: str, identity: Identity) -> None:
        try:
            owner = os.pidfd_open(pid)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        try:
            box = Box(fd, rank, self._epoch, pid)
            if box.pid != _own_pid(pid):
                raise NotAMailbox("a child has inherited it")
        except NotAMailbox as reason:
            _log.debug("%s is not taken: %s", path, reason)
            os.close(fd)
            os.close(owner)
            return
        self._known[identity] = box
        self._owners[owner] = (identity, pid)
        self._poll.register(owner, select.POLLIN)
        self._found(box)

    def _ended(self, owner: int) -> None:
        self._poll.unregister(owner)
        os.close(owner)
        identity, pid = self._owners.pop(owner)
        box = self._known.pop(identity)
        self._lost(box, f"cannot take part: its process {box.pid} has ended")
        _log.info("the owner of a mailbox of rank %d, process %d, has ended", box.tree, pid)


def tree(root: int) -> Iterator[int]:
    """A process and all its descendants; those that end meanwhile are left out."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    waiting += [int(child) for child in file.read().split()]
            except OSError:
                continue


def _ours(pid: int) -> Iterator[tuple[str, Identity, bool]]:
    """Mailboxes, and meters (True)."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        path = f"{folder}/{name}"
        try:
            link = os.readlink(path)
            if link.startswith((_LINK, _METER_LINK)):
                info = os.stat(path)
                yield path, (info.st_dev, info.st_ino), link.startswith(_METER_LINK)
        except OSError:
            continue


def _own_pid(pid: int) -> int:
    """A process's number in its own namespace."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
    except OSError:
        pass
    return pid


def _changed_ns(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0
