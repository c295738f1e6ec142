"""What can go wrong below the agent.

DriverError
|-- CommandNotFound  the command is not there; nothing has run: the job's; do not retry
|-- NoRights         this machine does not let us make namespaces or mounts: the operator's; do not retry
|-- RankGone         the rank's PID 1 is not there any more: look at its exit status
|-- TooSlow          a deadline passed; what had been begun was undone: nobody's; retry later
|-- Refused          CRIU will not dump or restore this rank: `refusal` says why, and whose it is
`-- Broken           a rank cannot be undone to where it was: kill it, go back to the last snapshot
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Blame(Enum):
    JOB = "job"  # it holds something that cannot be moved: it may let go of it; later tries may pass
    NODE = "node"  # this node lacks something: another one, or this one mended, may do
    OURS = "midstep"  # not understood: report it


class Kind(Enum):
    DEVICE = "device"
    FILE_CHANGED = "file changed"
    FILE_MISSING = "file missing"
    FILE_TOO_LARGE = "deleted file too large"
    PROC_FILE = "file of /proc"
    SOCKET = "socket"
    PIPE = "pipe to outside"
    IO_URING = "io_uring"
    KERNEL_OBJECT = "kernel object"
    MOUNT = "mount"
    TERMINAL = "terminal"
    TRACED = "debugger"
    NAMESPACE = "namespace"
    SECCOMP = "seccomp"
    SHARED_OUTSIDE = "memory shared with outside"
    DISK_FULL = "disk full"
    MEMORY = "memory"
    PID_TAKEN = "process number taken"
    CPU = "processor"
    KERNEL = "kernel"
    RIGHTS = "rights"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Refusal:
    kind: Kind
    blame: Blame
    message: str  # what, where, what to do
    detail: str  # the line of CRIU's log that says so


class DriverError(Exception):
    """Anything that goes wrong in the drivers of ranks."""


class CommandNotFound(DriverError): ...


class NoRights(DriverError): ...


class RankGone(DriverError): ...


class TooSlow(DriverError): ...


class Broken(DriverError): ...


class Refused(DriverError):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
