"""What a rank's process says about its training, in one page of shared memory (a memfd) of its own.

The owner counts optimizer steps here, one store each, and says what its memory holds when it is asked: a
reader moves ``ASKED``, and the owner, at its next step, fills in the bytes and moves ``TOLD`` after it. So
nothing is measured that nobody asks for. Before a dump a reader writes the number of a step to ``LIGHTEN``:
at its end the owner gives memory that it has freed back to the kernel, moves ``LIGHT`` after it, and stands
still for a moment. Standard library only.
"""

from __future__ import annotations

import enum
import mmap
import os
from typing import Optional

NAME = "midstep-meter"
MAGIC = 0x6D69646D65746572
VERSION = 1
BYTES = 4096


class Word(enum.IntEnum):
    """Places in the page, in words of 64 bits. Sizes in bytes."""

    MAGIC = 0  # written last
    VERSION = 1
    PID = 2  # in the owner's own namespace
    STEPS = 8  # optimizer steps that were made
    ASKED = 9
    TOLD = 10
    PARAMETERS = 11
    OPTIMIZER = 12
    GRADIENTS = 13
    SHARED = 14  # of parameters and optimizer state: lie in memory that all sharers of the device map
    DEVICE_PEAK = 15  # the most that tensors had on GPUs at once
    LIGHTEN = 16
    LIGHT = 17


class NotAMeter(ValueError):
    """The file is not one of ours, not finished, or of another version."""


class Meter:
    """The page, mapped. ``fd``: a reader's; without, a new page is made, and this process owns it. Raises
    OSError: there is no memory for it; NotAMeter."""

    def __init__(self, fd: Optional[int] = None) -> None:
        owns = fd is None
        self.fd = os.memfd_create(NAME) if fd is None else fd  # close-on-exec
        if owns:
            os.ftruncate(self.fd, BYTES)
        elif os.fstat(self.fd).st_size < BYTES:
            raise NotAMeter("it has not its full size yet")
        self._map = mmap.mmap(self.fd, BYTES)
        self.words = memoryview(self._map).cast("Q")
        if owns:
            self.words[Word.PID] = os.getpid()
            self.words[Word.VERSION] = VERSION
            self.words[Word.MAGIC] = MAGIC
        elif self.words[Word.MAGIC] != MAGIC or self.words[Word.VERSION] != VERSION:
            version = self.words[Word.VERSION]
            self._unmap()
            raise NotAMeter("it has version %d; this side knows version %d" % (version, VERSION))

    @property
    def pid(self) -> int:
        """The owner, in its own namespace."""
        return self.words[Word.PID]

    def close(self) -> None:
        """Forget the page; in a forked child: leave the parent's alone."""
        self._unmap()
        os.close(self.fd)

    def _unmap(self) -> None:
        self.words.release()
        self._map.close()
