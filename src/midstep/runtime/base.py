"""What every process group of ours has: identity, posting, timeouts, and the answers that torch and scripts
ask for.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from ..mailbox.contract import Buffer, Channel, DType, Kind, Op, ReduceOp, Ticket
from . import turns
from .ddp_log import OUR_PREFIX
from .device.here import leave
from .profiling import begin, profiling, title
from .tensors import Finish, both
from .torch_types import ProcessGroup, backend_options
from .work import LINGER_S, LINGER_S_PER_BYTE, OpWork

SMALL_BYTES = 1 << 20  # get_future lingers for operations up to this
MOST_OPS = 4096  # descriptions kept for reuse


@dataclass(frozen=True)
class Membership:
    """Which group this is and who we are in it."""

    world: str
    name: str
    ranks: Tuple[int, ...]  # ranks of the world, as torch numbers them
    known_ranks: Tuple[int, ...]  # the same as the proxies number them
    me: int  # index into ranks
    backend: str  # as the script asked for, e.g. "gloo" or "cpu:gloo,cuda:nccl"
    device_backends: Dict[str, str]  # device type -> backend
    one_home: bool = False  # whether all members are ranks of the job that see the same shared memory


class GroupBase(ProcessGroup):
    """A process group whose operations travel through the mailbox."""

    def __init__(self, channel: Channel, who: Membership, store: Any, timeout: timedelta) -> None:
        size = len(who.ranks)
        super().__init__(who.me, size)
        self.channel = channel
        turns.use(channel)
        self.who = who
        self._me = who.me
        self._n = size
        self.timeout = timeout
        self._timeout_s = timeout.total_seconds()
        self._group_store = store
        self._ops: Dict[Tuple[Any, ...], Op] = {}
        self._sequence = 0
        self._barriers = 0
        self._coalescing: Optional[List[OpWork]] = None
        self._names = [who.name, "undefined"]
        self._face = BackendFace(self)
        self._gid = channel.open_group(who.world, who.name, who.known_ranks, who.me)
        self._closed = threading.Lock()
        if hasattr(ProcessGroup, "_set_default_backend"):
            self._set_default_backend(ProcessGroup.BackendType.CUSTOM)

    # -- posting

    def _op(
        self,
        kind: Kind,
        dtype: DType = DType.uint8,
        reduce: ReduceOp = ReduceOp.SUM,
        root: int = 0,
        peer: int = 0,
        tag: int = 0,
        splits: Tuple[int, ...] = (),
        out_splits: Tuple[int, ...] = (),
    ) -> Op:
        """The operation's description: one object for all operations alike, since making one takes
        microseconds.
        """
        key = (kind, dtype, reduce, root, peer, tag, splits, out_splits)
        op = self._ops.get(key)
        if op is None:
            if len(self._ops) >= MOST_OPS:
                self._ops.clear()
            op = self._ops[key] = Op(kind, self._gid, dtype, reduce, root, peer, tag, 1.0, splits, out_splits)
        return op

    def _start(
        self,
        op: Op,
        src: Optional[Buffer],
        dst: Optional[Buffer],
        results: List[Any],
        finish: Optional[Finish] = None,
        inputs: Sequence[torch.Tensor] = (),
        ticket: Optional[Ticket] = None,
    ) -> OpWork:
        """Post one operation, unless it has a ticket already, and return its handle. ``inputs``: what the
        profiler shows; none: no event."""
        self._sequence += 1
        if inputs and profiling():
            finish = both(finish, self._event(op.kind, inputs, op.peer < 0))
        nbytes = src.nbytes if src is not None else 0
        linger_s = LINGER_S + nbytes * LINGER_S_PER_BYTE if nbytes <= SMALL_BYTES else 0.0
        if ticket is None:
            ticket = self.channel.post(op, src, dst)
        else:
            linger_s = 0.0  # its own way of waiting
        work = OpWork((ticket,), self._timeout_s, results, finish, linger_s)
        if self._coalescing is not None:
            self._coalescing.append(work)
        if turns.shared():
            turns.posted(work)
        return work

    def _together(self, works: Sequence[OpWork], finish: Optional[Finish] = None) -> OpWork:
        """One handle for several operations."""
        return AllWork(works, self._timeout_s, finish)

    def _event(self, kind: Kind, inputs: Sequence[Any], any_source: bool = False) -> Optional[Finish]:
        """Begin an event for the profiler, if one runs; what ends it."""
        if not profiling():
            return None
        backend = self.who.device_backends.get("cpu", self.who.backend)
        return begin(title(backend, kind, any_source), inputs)

    def next_barrier_key(self) -> str:
        """A store key for the next monitored barrier, the same in every member."""
        self._barriers += 1
        return f"{self.who.world}/{self.who.name}/barrier/{self._barriers}"

    # -- what torch asks a group for

    def rank(self) -> int:
        return self._me

    def size(self) -> int:
        return self._n

    def getRank(self) -> int:
        return self._me

    def getSize(self) -> int:
        return self._n

    def name(self) -> str:
        names = set(self.who.device_backends.values())
        return names.pop() if len(names) == 1 else self.who.device_backends.get("cpu", self.who.backend)

    _get_backend_name = name

    def getBackendName(self) -> str:
        """What C++ is told: not "gloo", which DDP's logger would take for an object of that class (see
        ddp_log).
        """
        return OUR_PREFIX + self.name()

    def getGroupName(self) -> str:
        return self._names[0]

    def setGroupName(self, name: str) -> None:
        self._names[0] = name

    def getGroupDesc(self) -> str:
        return self._names[1]

    def setGroupDesc(self, text: str) -> None:
        self._names[1] = text

    _set_group_name = setGroupName
    _set_group_desc = setGroupDesc
    group_name = property(getGroupName)
    group_desc = property(getGroupDesc)

    def asked_for(self, backend: str, devices: Dict[str, str]) -> None:
        """Answer with this backend's name from now on."""
        self.who = replace(self.who, backend=backend, device_backends=devices)

    def get_group_store(self) -> Any:
        return self._group_store

    def _get_backend(self, device: Any) -> BackendFace:
        kind = torch.device(device).type
        if kind not in self.who.device_backends:
            raise RuntimeError(f"No backend type associated with device type {kind}")
        return self._face

    @property
    def _device_types(self) -> List[torch.device]:
        return [torch.device(kind) for kind in self.who.device_backends]

    @property
    def supports_splitting(self) -> bool:
        return False

    def _set_sequence_number_for_group(self) -> None:
        pass

    def _get_sequence_number_for_group(self) -> int:
        return self._sequence

    def set_timeout(self, timeout: timedelta) -> None:
        self.timeout = timeout
        self._timeout_s = timeout.total_seconds()

    _set_default_timeout = set_timeout

    def _has_hooks(self) -> bool:
        return False

    def _wait_for_pending_works(self) -> None:
        pass

    def _enable_collectives_timing(self) -> None:
        pass

    def shutdown(self) -> None:
        """Leave the group, once."""
        if self._closed.acquire(blocking=False):
            leave(self._gid)
            self.channel.close_group(self._gid)

    def abort(self) -> None:
        self.shutdown()

    # -- coalescing: operations are posted at once, one handle stands for all

    def _start_coalescing(self, device: Any) -> None:
        self._coalescing = []

    def _end_coalescing(self, device: Any) -> OpWork:
        works, self._coalescing = self._coalescing or [], None
        return self._together(works)

    start_coalescing = _start_coalescing
    end_coalescing = _end_coalescing


class AllWork(OpWork):
    """One handle for several."""

    def __init__(self, works: Sequence[OpWork], timeout_s: float, finish: Optional[Finish] = None) -> None:
        results = [tensor for work in works for tensor in work.result()]
        super().__init__([t for work in works for t in work.tickets], timeout_s, results, finish)
        self._works = works

    def complete(self, timeout_s: Optional[float]) -> None:
        for work in self._works:
            if not work.over:
                work.complete(timeout_s)
            self.error = self.error or work.error
        self._run_finish()
        self.over = True


class BackendFace:
    """What ``group._get_backend(device)`` returns: the little that torch's Python code asks a backend for."""

    supports_splitting = False
    supports_coalescing = False
    supports_time_estimate = False

    def __init__(self, group: GroupBase) -> None:
        self._group = group

    def name(self) -> str:
        return self._group.name()

    def rank(self) -> int:
        return self._group.rank()

    def size(self) -> int:
        return self._group.size()

    def supports_tensor_alloc(self, device: Any) -> bool:
        return False

    def eager_connect_single_device(self, device: Any) -> None:
        pass

    @property
    def options(self) -> Any:
        """Options such as gloo's own: ``_timeout`` is the group's."""
        options = backend_options(self.name(), self._group.timeout)
        if hasattr(options, "global_ranks_in_group"):
            options.global_ranks_in_group = list(self._group.who.ranks)
            options.group_name = self._group.who.name
        return options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)
