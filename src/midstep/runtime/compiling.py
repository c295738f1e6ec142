"""Our Python is hidden from ``torch.compile``: a compiled model calls it through C++, where with torch's own
groups there would be no Python to compile.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from types import FunctionType
from typing import Any, Callable, Iterator, Optional, Set

import torch

_hidden: Set[type] = set()


def hide(*classes: type) -> None:
    """Have Dynamo leave the methods of these classes, their bases of ours, and all that they call alone."""
    skip = _skipper()
    if skip is None:
        return
    for cls in classes:
        for function in _functions(cls):
            skip(function.__code__)


def _skipper() -> Optional[Callable[[Any], Any]]:
    """How this torch is told, without importing Dynamo; None: it cannot be."""
    frames: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)  # pyright: ignore[reportPrivateUsage]
    if hasattr(frames, "set_code_exec_strategy"):
        action = frames._FrameAction.SKIP
        strategy = frames._FrameExecStrategy(action, action)  # this frame, and those below it
        return lambda code: frames.set_code_exec_strategy(code, strategy)
    return getattr(frames, "skip_code", None)


def _functions(cls: type) -> Iterator[FunctionType]:
    for base in cls.__mro__:
        if base in _hidden or base.__module__.partition(".")[0] != __name__.partition(".")[0]:
            continue
        _hidden.add(base)
        yield from [value for value in vars(base).values() if isinstance(value, FunctionType)]
