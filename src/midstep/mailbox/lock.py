"""A lock in memory that several processes map. Standard library only."""

from __future__ import annotations

import ctypes
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
_sem_init, _sem_trywait, _sem_post = _LIBC["sem_init"], _LIBC["sem_trywait"], _LIBC["sem_post"]
_sem_init.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
_sem_trywait.argtypes = _sem_post.argtypes = (ctypes.c_void_p,)
_NAP_S = 0.0001


class SharedLock:
    """A semaphore of the C library at an address: 32 bytes."""

    def __init__(self, address: int) -> None:
        self._address = address

    @staticmethod
    def begin(address: int) -> None:
        """Make one there, free."""
        _sem_init(address, 1, 1)

    def acquire(self, limit_s: float = float("inf")) -> bool:
        """Wait for it, as long as it takes unless a limit is given: its holder, who has it for microseconds,
        may be frozen. Whether it is held now."""
        nap_s, end_s = _NAP_S, time.monotonic() + limit_s
        while _sem_trywait(self._address) != 0:
            if time.monotonic() > end_s:
                return False
            time.sleep(nap_s)
            nap_s = min(0.005, nap_s * 1.5)
        return True

    def release(self) -> None:
        _sem_post(self._address)
