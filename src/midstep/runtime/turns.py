"""Taking turns on a device: what DDP waits for inside C++ is waited for here, where the lease is given up.

DDP posts its gradients from inside a backward and waits for them at its end. A callback of the autograd
engine, queued with the first of them, runs just before that, and waits in its place. The wait is bounded: a
script that does not wait at the end of a backward, whose peers wait for what it does next, only loses that
time, and loses it less often from then on.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false
from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, List, Optional

import torch

if TYPE_CHECKING:
    from ..mailbox.gate import Gate
    from .work import OpWork

PATIENCE_S = 0.4
_current_graph: Any = torch._C._current_graph_task_id


class _State(threading.local):
    """One backward of this thread: its number, and what was posted in it."""

    graph = -1
    posted: List[OpWork]

    def __init__(self) -> None:
        self.posted = []


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
    if _state.graph != graph:
        _state.graph = graph
        _state.posted = []
        torch.autograd.Variable._execution_engine.queue_callback(_backward_is_over)
    _state.posted.append(work)


def waits_at_the_end(work: OpWork) -> bool:
    """Whether an operation will be waited for at the end of this thread's backward."""
    return bool(_state.posted) and _state.posted[-1] is work and _state.graph == _current_graph()


def _backward_is_over() -> None:
    global _in_vain
    works, _state.posted, _state.graph = _state.posted, [], -1
    if shared():
        patience_s = PATIENCE_S / (1 << min(_in_vain, 6))
        for work in reversed(works):  # with the last one, all are done
            if not work.try_complete(patience_s):
                patience_s = 0.0
        _in_vain = 0 if patience_s else _in_vain + 1
    for work in works:
        if not work.over:
            work.mind()
