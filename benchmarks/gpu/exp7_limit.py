"""Where the time of the driver's checkpoint goes: against copies of the same bytes into memory of each kind.

usage: exp7_limit.py [GB ...]   as root (it sets transparent_hugepage and sets it back)
"""

from __future__ import annotations

import ctypes
import mmap
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from common import CudaDriver, Rank, emit

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
COPIED = 1 << 30


@contextmanager
def huge_pages(setting: str) -> Generator[None]:
    before = HUGE_PAGES.read_text().split("[")[1].split("]")[0]
    HUGE_PAGES.write_text(setting)
    try:
        yield
    finally:
        HUGE_PAGES.write_text(before)


def used(pid: int) -> tuple[float, float, int]:
    """Seconds in user and kernel mode, and page faults, of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) / 100, int(words[12]) / 100, int(words[7])


def cut(driver: CudaDriver, gb: int, setting: str) -> None:
    rank = Rank(f"limit-{gb}", "ballast.py", gb, pid_ns=False)
    try:
        rank.wait_lines(2, timeout_s=60)
        with huge_pages(setting):
            driver.lock([rank.pid], 10_000)
            before = used(rank.pid)
            report = driver.checkpoint([rank.pid])
            after = used(rank.pid)
            back = driver.restore([rank.pid])
            driver.unlock([rank.pid])
        rank.wait_lines(len(rank.lines()) + 2, timeout_s=60)
        emit(
            "exp7.cut", gb=gb, huge_pages=setting, moved_bytes=report.moved_bytes,
            checkpoint_s=report.duration_s, checkpoint_gb_per_s=report.moved_bytes / report.duration_s / 1e9,
            restore_s=back.duration_s, restore_gb_per_s=report.moved_bytes / back.duration_s / 1e9,
            user_s=after[0] - before[0], kernel_s=after[1] - before[1], faults=after[2] - before[2],
        )  # fmt: skip
    finally:
        rank.kill()


def rate(work: Callable[[], float], times: int = 3) -> float:
    return COPIED / statistics.median(work() for _ in range(times)) / 1e9


def fresh() -> mmap.mmap:
    return mmap.mmap(-1, COPIED)


def address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def copies(setting: str) -> None:
    """One thread, as the driver's: the device's bytes into memory never touched, and the touching alone."""
    source = torch.randint(0, 255, (COPIED,), dtype=torch.uint8, device="cuda")
    pinned = torch.empty(COPIED, dtype=torch.uint8, pin_memory=True)

    def to_pinned() -> float:
        torch.cuda.synchronize()
        begun_s = time.perf_counter()
        pinned.copy_(source)
        torch.cuda.synchronize()
        return time.perf_counter() - begun_s

    def to_fresh() -> float:
        target = torch.frombuffer(fresh(), dtype=torch.uint8)
        begun_s = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        return time.perf_counter() - begun_s

    def touching() -> float:
        memory = fresh()
        begun_s = time.perf_counter()
        ctypes.memset(address(memory), 1, COPIED)
        return time.perf_counter() - begun_s

    with huge_pages(setting):
        rates = {"pinned": rate(to_pinned), "never touched": rate(to_fresh), "touching alone": rate(touching)}
    emit("exp7.copies", huge_pages=setting, gb_per_s=rates)


def main() -> None:
    driver = CudaDriver(deadline_s=120)
    for setting in ("never", "always"):
        copies(setting)
        for gb in [int(word) for word in sys.argv[1:]] or [8, 24]:
            try:
                cut(driver, gb, setting)
            except Exception as error:
                emit("exp7.failed", gb=gb, huge_pages=setting, error=repr(error)[:600])


if __name__ == "__main__":
    main()
