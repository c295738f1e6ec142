"""Counts optimizer steps, and says what the optimizers' memory holds when somebody asks.

A step costs one store to shared memory, four reads and one of the clock; the page is made at the first one. A
process whose page cannot be made trains as ever, and is not measured.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import ctypes
import itertools
import os
import sys
import threading
import time
from typing import Any, Iterator, List, Optional

from ..mailbox.meter import Meter, Word

_STEPS, _ASKED, _TOLD = int(Word.STEPS), int(Word.ASKED), int(Word.TOLD)
_LIGHTEN, _LIGHT = int(Word.LIGHTEN), int(Word.LIGHT)
_HOLD_S = 0.05  # a step is ended for so long where a dump is to come
_SOON = 0.1  # of the time from one to the other
_lightening = 0
_stepped_s = _zeroed_s = 0.0
_zeroes_soon = False
_trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # looked up before any fork
_lock = threading.Lock()
_meter: Optional[Meter] = None
_words: Any = None
_count: Iterator[int] = itertools.count(1)


class Nesting(threading.local):
    """Whether this thread is within an optimizer's step: one that wraps another one's makes one step, not
    two."""

    inside = False


nesting = Nesting()


def stepped() -> None:
    """An optimizer step was made. Never raises."""
    global _stepped_s
    words = _words
    if words is None:
        words = _begin()
    words[_STEPS] = next(_count)
    _stepped_s = time.monotonic()
    if words[_ASKED] != words[_TOLD]:
        _tell(words)
    if words[_STEPS] >= words[_LIGHTEN] != words[_LIGHT]:
        _lighten(words)


def zeroed() -> None:
    """Gradients were let go of. Never raises. Right after a step, or in the middle of one: then there are
    activations instead."""
    global _zeroes_soon, _zeroed_s
    now_s, before_s = time.monotonic(), _zeroed_s
    _zeroed_s = now_s
    _zeroes_soon = now_s - _stepped_s < _SOON * (_stepped_s - before_s)
    words = _words
    if words is not None and _zeroes_soon and _lightening != words[_LIGHT]:
        _hold(words)


def _begin() -> Any:
    global _meter, _words
    with _lock:
        if _words is not None:
            return _words
        words: Any = [0] * 24  # not measured
        try:
            _meter = Meter()
            words = _meter.words
            words[Word.ASKED] = 1  # the first step says what there is, whoever asks later
            _announce()
        except (OSError, ValueError) as error:
            if os.environ.get("MIDSTEP_DEBUG"):
                sys.stderr.write("midstep: steps are not counted: %s\n" % error)
        _words = words
        return words


def _tell(words: Any) -> None:
    asked = words[_ASKED]
    try:
        from .splice.counters import COUNTERS
        from .splice.hook import memory

        held = memory()
        words[Word.PARAMETERS] = held["parameters"]
        words[Word.OPTIMIZER] = held["optimizer"]
        words[Word.GRADIENTS] = held["gradients"]
        words[Word.SHARED] = max(0, COUNTERS.shared_bytes)
        words[Word.DEVICE_PEAK] = _device_peak_bytes()
    except Exception:
        pass  # an optimizer of the user's whose state is of its own kind
    words[_TOLD] = asked


def _lighten(words: Any) -> None:
    """A dump comes. Here is the least to dump, or after the gradients have gone, where that is soon."""
    global _lightening
    waited = _lightening == words[_LIGHTEN]
    _lightening = words[_LIGHTEN]
    if waited or not _zeroes_soon:
        _hold(words)


def _hold(words: Any) -> None:
    """Give back what is free; then stand still for a moment, in which the dump comes. Others of the device,
    which are to come to the end of a step, too, may go on."""
    _give_back()
    words[_LIGHT] = _lightening
    turns: Any = sys.modules.get(__name__.rpartition(".")[0] + ".turns")
    if turns is None or not turns.shared():
        time.sleep(_HOLD_S)
        return
    from .splice.seating import Yielding

    yielding = Yielding()
    yielding.before_sleep()
    time.sleep(_HOLD_S)
    yielding.until_our_turn()


def _give_back() -> None:
    """What MKL keeps to pack matrices in, and what was freed and lies in the heap until it is used again."""
    try:
        ctypes.CDLL("libtorch_cpu.so", mode=os.RTLD_NOLOAD).mkl_serv_thread_free_buffers()
    except (OSError, AttributeError):
        pass  # a torch without MKL
    if _trim is not None:
        _trim(0)


def _device_peak_bytes() -> int:
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return 0
    sums: List[int] = [cuda.max_memory_allocated(index) for index in range(cuda.device_count())]
    return sum(sums)


def _announce() -> None:
    """A hint for the proxy, in the folder that it watches; it finds the page by itself, a little later."""
    run_dir = os.environ.get("MIDSTEP_RUN")
    if run_dir:
        try:
            folder = os.path.join(run_dir, "mailboxes")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "meter-%d" % os.getpid()), "w"):
                pass
        except OSError:
            pass


def _in_child() -> None:
    """A forked child's steps are its own; it also gives back what its parent had freed, which nobody else
    has any more. (MKL's locks may be held by a thread that the child lacks; the heap's are not.)"""
    global _meter, _words, _count, _lock, _lightening, _zeroes_soon
    meter, _meter, _words = _meter, None, None
    _count, _lock = itertools.count(1), threading.Lock()
    nesting.inside, _zeroes_soon, _lightening = False, False, 0
    if meter is not None:
        meter.close()
        if _trim is not None:
            _trim(0)


os.register_at_fork(after_in_child=_in_child)
