"""Taking turns on a device: what DDP waits for inside C++ is waited for here, where the lease is given up.

DDP posts its gradients from inside a backward and waits for them at its end. A callback of the autograd
engine, queued with the first of them, runs just before that, and waits in its place. The wait is bounded: a
script that does not wait at the end of a backward, whose peers wait for what it does next, only loses that
time, and loses it less often from then on. Where DDP's C++ has asked for the future, it does wait: then the
bound is long, since all the others have their turns on the device meanwhile.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false
from __future__ import annotations

import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, List, Optional, Set

import torch

if TYPE_CHECKING:
    from ..mailbox.gate import Gate
    from .work import OpWork

PATIENCE_S = 0.4
DDP_PATIENCE_S = 20.0
_ENGINE = "_engine_run_backward"
_current_graph: Any = torch._C._current_graph_task_id
_current_node: Any = getattr(torch._C, "_current_autograd_node", None)


class _State(threading.local):
    """Backwards of this thread, one within the other: those whose end is awaited, and what was posted."""

    def __init__(self) -> None:
        self.graphs: Set[int] = set()
        self.posted: List[OpWork] = []


_state = _State()
_gate: Optional[Gate] = None
_in_vain = 0  # how often the wait was given up
on_device = False  # whether ranks exchange tensors in the memory of a GPU that they share


def use(channel: Any) -> None:
    """This process posts on this channel."""
    global _gate
    _gate = getattr(channel, "gate", None)


def shared() -> bool:
    """Whether other ranks of the job compute on this one's device."""
    return on_device or (_gate is not None and _gate.shared)


def posted(work: OpWork) -> None:
    """An operation was posted. With ``shared``."""
    graph = _current_graph()
    if graph < 0:
        return
    if graph not in _state.graphs:
        _state.graphs.add(graph)
        torch.autograd.Variable._execution_engine.queue_callback(_backward_is_over)
    _state.posted.append(work)


def waits_at_the_end(work: OpWork) -> bool:
    """Whether an operation will be waited for at the end of this thread's backward."""
    return bool(_state.posted) and _state.posted[-1] is work and _current_graph() in _state.graphs


def asked_by_the_engine(asker: Optional[FrameType]) -> bool:
    """Whether nobody but DDP's C++, from within a node of the graph, has asked for a future: it waits for it
    at the end of the backward, and nowhere else. A hook in Python may wait for it where it likes; and what
    is posted after all nodes is waited for at once."""
    if asker is None or asker.f_code.co_name != _ENGINE or _current_node is None:
        return False
    return _current_node() is not None


def _backward_is_over() -> None:
    """What was posted in backwards around this one is waited for here, too: by now DDP may have it all."""
    global _in_vain
    works, _state.posted = _state.posted, []
    _state.graphs.discard(_current_graph())
    if shared():
        surely = bool(works) and all(work.awaited for work in works)
        patience_s = (DDP_PATIENCE_S if surely else PATIENCE_S) / (1 << min(_in_vain, 6))
        for work in reversed(works):  # with the last one, all are done
            if not work.try_complete(patience_s):
                patience_s = 0.0
        _in_vain = 0 if patience_s else _in_vain + 1
    for work in works:
        if not work.over:
            work.mind()
