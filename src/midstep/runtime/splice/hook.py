"""Puts splicing under ``Optimizer.step``, between torch's hooks and the optimizer's own code."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import functools
import importlib
import os
import sys
import weakref
from typing import Any, Callable, Dict, List, Set, Tuple

from ..metering import nesting, stepped, zeroed

_owner = os.getpid()
_seen: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()  # optimizers, with their steppers
_stepper_module: Any = None
_compiling: List[Callable[[], bool]] = []
_NEW = object()


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
    untraced: Any = getattr(sys.modules.get("torch"), "_disable_dynamo", None)
    if untraced is not None:
        optimizer.zero_grad = untraced(_noted(optimizer.zero_grad))
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def optimizers() -> Tuple[Any, ...]:
    """All optimizers that were stepped and are alive."""
    return tuple(_seen)


def _guard(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def step(*args: Any, **kwargs: Any) -> Any:
        if _is_compiling():
            return func(*args, **kwargs)
        if nesting.inside:  # an optimizer that wraps another one: one step
            return _step(func, args, kwargs)
        nesting.inside = True
        try:
            result = _step(func, args, kwargs)
        finally:
            nesting.inside = False
        stepped()
        return result

    return step


def _noted(zero_grad: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(zero_grad)
    def noted(*args: Any, **kwargs: Any) -> Any:
        result = zero_grad(*args, **kwargs)
        zeroed()
        return result

    return noted


def _step(func: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    stepper = _stepper(args)
    if stepper is None:
        return func(*args, **kwargs)

    def plain() -> bool:
        return len(args) == 1 and all(value is None for value in kwargs.values()) and _plain_torch()

    return stepper.step(args[0], functools.partial(func, *args, **kwargs), plain)


def _stepper(args: Tuple[Any, ...]) -> Any:
    """The optimizer's stepper; None where its step is made as ever."""
    optimizer = args[0] if args else None
    try:
        stepper = _seen.get(optimizer, _NEW)
        return _meet(optimizer) if stepper is _NEW else stepper
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
    """Whether Dynamo traces this call, or compiles what is called from here: the step itself, and our Python
    in between."""
    if not _compiling:
        _compiling.extend(_signs_of_a_compiler())
    for sign in _compiling:  # noqa: SIM110 - Dynamo traces this: plainly
        if sign() not in (None, False):
            return True
    return False


def _signs_of_a_compiler() -> List[Callable[[], Any]]:
    import torch

    signs: List[Callable[[], Any]] = [importlib.import_module("torch.compiler").is_compiling]
    frames: Any = getattr(torch._C, "_dynamo", None)  # pyright: ignore[reportPrivateUsage]
    callback: Any = getattr(getattr(frames, "eval_frame", None), "get_eval_frame_callback", None)
    return signs if callback is None else [*signs, callback]


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
    """Bytes by kind, of all optimizers alive; of a sharded tensor, this rank's part."""
    sums = {"parameters": 0, "gradients": 0, "optimizer": 0}
    known: Set[int] = set()
    for optimizer in optimizers():
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) not in known:
                    known.add(id(p))
                    sums["parameters"] += _bytes(p)
                    sums["gradients"] += _bytes(p.grad)
                for value in (optimizer.state.get(p) or {}).values():
                    if id(value) not in known:  # one that wraps another has the same state
                        known.add(id(value))
                        sums["optimizer"] += _bytes(value)
    return sums


def _bytes(tensor: Any) -> int:
    tensor = getattr(tensor, "_local_tensor", tensor)
    return tensor.numel() * tensor.element_size() if hasattr(tensor, "element_size") else 0
