"""Puts splicing under ``Optimizer.step``, between torch's hooks and the optimizer's own code."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import functools
import importlib
import os
import weakref
from typing import Any, Callable, Dict, List, Tuple

_owner = os.getpid()
_seen: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()  # optimizers, with their steppers
_stepper_module: Any = None
_compiling: List[Callable[[], bool]] = []


def install(module: Any) -> None:
    """Called right after ``torch.optim.optimizer`` was loaded: classes wrap their step when they are first
    used, so theirs are wrapped by us."""
    optimizer = module.Optimizer
    if getattr(optimizer, "_midstep", False):
        return
    optimizer._midstep = True
    original = optimizer.profile_hook_step

    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        return original(_guard(func))

    functools.update_wrapper(profile_hook_step, original)
    optimizer.profile_hook_step = staticmethod(profile_hook_step)
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def optimizers() -> Tuple[Any, ...]:
    """All optimizers that were stepped and are alive."""
    return tuple(_seen)


def _guard(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def step(*args: Any, **kwargs: Any) -> Any:
        if _is_compiling():
            return func(*args, **kwargs)
        stepper = _stepper(args)
        if stepper is None:
            return func(*args, **kwargs)
        plain = len(args) == 1 and all(value is None for value in kwargs.values())
        return stepper.step(args[0], functools.partial(func, *args, **kwargs), plain and _plain_torch())

    return step


def _stepper(args: Tuple[Any, ...]) -> Any:
    """The optimizer's stepper; None where its step is made as ever."""
    optimizer = args[0] if args else None
    try:
        if optimizer in _seen:
            stepper = _seen[optimizer]
            return stepper if os.getpid() == _owner else None
        return _meet(optimizer)
    except Exception:
        return None


def _meet(optimizer: Any) -> Any:
    global _stepper_module
    if _stepper_module is None:
        package = __name__.rpartition(".")[0]
        _stepper_module = importlib.import_module(package + ".stepper")
    stepper = None
    if os.getpid() == _owner:
        stepper = _stepper_module.stepper_for(optimizer)
    if stepper is not None:
        weakref.finalize(optimizer, _end, stepper)
    _seen[optimizer] = stepper
    return stepper


def _end(stepper: Any) -> None:
    try:
        stepper.end()
    except Exception:
        pass  # at the end of a process much is gone


def _is_compiling() -> bool:
    if not _compiling:
        _compiling.append(importlib.import_module("torch.compiler").is_compiling)
    return _compiling[0]() or _compiles_calls()


def _compiles_calls() -> bool:
    """Whether Dynamo compiles what is called from here: the step itself, and our Python in between."""
    import torch

    frames: Any = getattr(torch._C, "_dynamo", None)  # pyright: ignore[reportPrivateUsage]
    callback: Any = getattr(getattr(frames, "eval_frame", None), "get_eval_frame_callback", None)
    return callback is not None and callback() not in (None, False)


def _plain_torch() -> bool:
    """Whether nobody watches or changes what torch does: such a mode would see our arithmetic."""
    import torch

    core: Any = torch._C  # pyright: ignore[reportPrivateUsage]
    depth = getattr(core, "_len_torch_dispatch_stack", None)
    return not torch.cuda.is_initialized() and (depth is None or depth() == 0)


def _before_fork() -> None:
    if _stepper_module is not None and os.getpid() == _owner:
        _stepper_module.before_fork()


def _in_child() -> None:
    """The child's optimizers are its own affair: its memory is a copy."""
    for optimizer in list(_seen):
        _seen[optimizer] = None


def memory() -> Dict[str, int]:
    """Bytes by kind, of all optimizers alive."""
    sums = {"parameters": 0, "gradients": 0, "optimizer": 0}
    known = set()
    for optimizer in optimizers():
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) not in known:
                    known.add(id(p))
                    sums["parameters"] += _bytes(p)
                    sums["gradients"] += _bytes(p.grad)
                for value in (optimizer.state.get(p) or {}).values():
                    sums["optimizer"] += _bytes(value)
    return sums


def _bytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size() if hasattr(tensor, "element_size") else 0
