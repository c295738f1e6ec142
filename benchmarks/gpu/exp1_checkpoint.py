"""Is a CUDA training process, cut at random instants and killed, the same to the last bit? At what cost?

usage: exp1_checkpoint.py [GB ...]   sizes of the state on the device; as root; variable CRIU: the command
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common import CudaDriver, Rank, cut, emit, random_instant

# size: steps, and the cuts: in memory only; the same with transparent huge pages; through CRIU
PLANS = {
    0.5: (600, ["memory", "criu", "criu"]),
    8.0: (250, ["memory", "huge", "criu"]),
    30.0: (120, ["memory", "criu"]),
}
SAVE_AT = 20
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@contextlib.contextmanager
def huge_pages() -> Iterator[None]:
    original = HUGE_PAGES.read_text().split("[")[1].split("]")[0]
    HUGE_PAGES.write_text("always")
    try:
        yield
    finally:
        HUGE_PAGES.write_text(original)


class Size:
    """The ranks for one size, started early: undisturbed, cut, and the one that saves itself."""

    def __init__(self, gb: float, pid_ns: bool = True) -> None:
        self.gb, self.pid_ns = gb, pid_ns
        self.steps, self.kinds = PLANS.get(gb, PLANS[8.0])
        plain = ["--gb", gb, "--steps", self.steps, "--wait"]
        self.base = Rank(f"base-{gb}", "train.py", *plain)
        self.cut = Rank(f"cut-{gb}-{pid_ns}", "train.py", *plain, pid_ns=pid_ns)
        self.save = Rank(f"save-{gb}", "train.py", *plain, "--save-at", SAVE_AT)

    def ready(self) -> None:
        for rank in (self.base, self.cut, self.save):
            rank.wait_lines(1, "ready")

    def kill(self) -> None:
        for rank in (self.base, self.cut, self.save):
            rank.kill()
            shutil.rmtree(rank.folder, ignore_errors=True)


def finish(rank: Rank) -> tuple[list[str], str]:
    digest = rank.wait_lines(1, "done ", 180)[0]
    return rank.lines(), digest


def cuts(size: Size, driver: CudaDriver) -> None:
    size.base.go()
    expected = finish(size.base)
    size.base.kill()
    rank = size.cut
    rank.go()
    for number, kind in enumerate(size.kinds):
        rank.wait_lines(len(rank.lines()) + 8)
        random_instant(seed=number)
        with huge_pages() if kind == "huge" else contextlib.nullcontext():
            parts = cut(driver, rank, rank.folder / "images" if kind == "criu" else None)
        emit("exp1.cut", gb=size.gb, pid_ns=size.pid_ns, kind=kind, at=len(rank.lines()), **parts)
    equal = finish(rank) == expected
    emit("exp1.equal", gb=size.gb, pid_ns=size.pid_ns, cuts=size.kinds, steps=size.steps, equal=equal)
    rank.kill()


def rival(size: Size, driver: CudaDriver) -> None:
    """torch.save to the same medium, a new process, torch.load, until its first new step is done."""
    size.save.go()
    saved = size.save.wait_lines(1, "saved ", 180)[0].split()
    size.save.kill()
    begun_s = time.monotonic()
    options = ["--gb", size.gb, "--steps", size.steps, "--load", "saved.pt"]
    again = Rank(f"save-{size.gb}", "train.py", *options, fresh=False)
    try:
        again.wait_lines(SAVE_AT + 1, timeout_s=180)
        back_s = time.monotonic() - begun_s
        times = again.lines("times ")[0]
        emit(
            "exp1.rival",
            gb=size.gb,
            save_s=float(saved[1]),
            saved_bytes=int(saved[3]),
            back_s=back_s,
            times=times,
        )
    finally:
        again.kill()


def measure(size: Size, driver: CudaDriver) -> None:
    try:
        size.ready()
        for part in (cuts, rival):
            try:
                part(size, driver)
            except Exception as error:
                emit("exp1.failed", gb=size.gb, what=part.__name__, error=repr(error)[:1500])
    finally:
        size.kill()


def main() -> None:
    driver = CudaDriver(deadline_s=120)
    support = driver.available()
    emit("exp1.support", ok=support.ok, driver_version=support.driver_version, reason=support.reason)
    for gb in [float(word) for word in sys.argv[1:]] or [0.5, 8.0, 30.0]:
        for pid_ns in (True, False) if gb < 2 else (True,):
            measure(Size(gb, pid_ns), driver)


if __name__ == "__main__":
    main()
