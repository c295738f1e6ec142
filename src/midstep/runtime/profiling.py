"""Operations in torch's profiler, under gloo's names there (``gloo:all_reduce``, asynchronous)."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, Sequence

import torch

from ..mailbox.contract import Kind

_NAMES = {
    Kind.ALLREDUCE: "all_reduce",
    Kind.ALLGATHER: "all_gather",
    Kind.ALLTOALL: "all_to_all",
}
_ender: Optional[ThreadPoolExecutor] = None

_autograd: Any = importlib.import_module("torch._C._autograd")
profiling: Callable[[], bool] = _autograd._profiler_enabled
"""Whether a profiler runs in this thread."""


def title(backend: str, kind: Kind, any_source: bool = False) -> str:
    """The event's name."""
    name = "recvAnySource" if any_source else _NAMES.get(kind, kind.name.lower())
    return f"{backend}:{name}"


def begin(name: str, inputs: Sequence[torch.Tensor]) -> Callable[[], None]:
    """Begin an event with these inputs (whose shapes it shows); what is returned ends it."""
    handle = _autograd._record_function_with_args_enter(name, *inputs)
    return lambda: _end(handle)


def _end(handle: Any) -> None:
    """End an event in another thread than it began in: that makes it an asynchronous one for the profiler."""
    global _ender
    if _ender is None:
        _ender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="midstep-profiling")
    _ender.submit(_autograd._record_function_with_args_exit, handle).result()
