"""Before a checkpoint: have ranks come to the end of an optimizer step, and give back memory that they freed.

Right after a step there are the fewest gradients, and what there is of them is alike in all replicas; in the
middle of a backward pass each has its own. And the heap of a process keeps what was freed in it: old tensors,
by the hundred megabytes. A snapshot is smaller by both, and so is its pause. Nothing depends on it: a process
that makes no steps, or not soon enough, is dumped as it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from midstep.mailbox.meter import NAME, Meter, NotAMeter, Word
from midstep.proxy.attach import tree

WAIT_S = 2.0
APART_S = 1.0  # ranks make their steps at about the same time, or will not
_POLL_S = 0.0005
_LINK = f"/memfd:{NAME}"


def lighten(roots: Iterable[int], ready: Callable[[int], None], wait_s: float = WAIT_S) -> int:
    """Wait until all that make steps, of these processes and their descendants, have made one: at most
    ``wait_s`` seconds, and APART_S from the first to the last. ``ready`` is called for each of the roots as
    soon as it has. Returns how many pages of steps there are. Freeze them right after it."""
    with contextlib.ExitStack() as stack:
        found = {root: list(_pages(root, stack)) for root in roots}
        waiting = {root: pages for root, pages in found.items() if pages}
        _ask(waiting.values())
        end_s = time.monotonic() + wait_s
        while waiting and time.monotonic() < end_s:
            if any(map(_has_missed, chain(*waiting.values()))):
                _ask(waiting.values())
            for root, pages in list(waiting.items()):
                if all(map(_is_light, pages)):
                    del waiting[root]
                    ready(root)
                    end_s = min(end_s, time.monotonic() + APART_S)
            time.sleep(_POLL_S)
        return sum(map(len, found.values()))


def _ask(found: Iterable[list[Meter]]) -> None:
    """For the end of the next step; all that make them together for the same one, or those that are a step
    ahead would wait for the others in vain."""
    pages = list(chain(*found))
    newest = max((page.words[Word.STEPS] for page in pages), default=0)
    for page in pages:
        steps = page.words[Word.STEPS]
        page.words[Word.LIGHTEN] = (newest if steps >= newest - 1 else steps) + 1


def _has_missed(page: Meter) -> bool:
    """It had made the step when it was asked."""
    return page.words[Word.STEPS] > page.words[Word.LIGHTEN] and not _is_light(page)


def _is_light(page: Meter) -> bool:
    words = page.words
    return words[Word.LIGHT] == words[Word.LIGHTEN]


def _pages(root: int, stack: contextlib.ExitStack) -> Iterator[Meter]:
    """The meters of a process and its descendants; of a child that inherited one, it is found once."""
    known: set[int] = set()
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{name}"
                with contextlib.suppress(OSError, ValueError, NotAMeter):
                    if os.readlink(path).startswith(_LINK) and os.stat(path).st_ino not in known:
                        known.add(os.stat(path).st_ino)
                        page = Meter(os.open(path, os.O_RDWR | os.O_CLOEXEC))
                        stack.callback(page.close)
                        yield page
