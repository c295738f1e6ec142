"""Tests that need an NVIDIA GPU: skipped, saying why, where there is none."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midstep.agent.drivers.cuda import CudaDriver


def why_not() -> str:
    support = CudaDriver().available()
    if not support.ok:
        return support.reason
    return "" if importlib.util.find_spec("torch") else "torch is not installed"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU, driver 570 or newer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if any(item.get_closest_marker("gpu") for item in items) and (reason := why_not()):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"no GPU: {reason}"))


class Job:
    """A CUDA process whose log says 'good' for each stretch of steps with the right result."""

    def __init__(self, folder: Path, kernel_s: float) -> None:
        self._log = folder / "log"
        with open(self._log, "w") as log:
            command = [sys.executable, str(Path(__file__).parent / "job.py"), str(kernel_s)]
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.pid = self.process.pid

    def words(self) -> list[str]:
        return self._log.read_text().split("\n")[:-1]

    def goes_on(self, more: int = 2, timeout_s: float = 60.0) -> None:
        """Until it has done more steps, all of them right."""
        wanted, end_s = len(self.words()) + more, time.monotonic() + timeout_s
        while len(self.words()) < wanted:
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < end_s, f"no progress: {self._log.read_text()[-500:]}"
            time.sleep(0.01)
        assert set(self.words()) == {"good"}

    def stands_still(self, during_s: float = 0.5) -> bool:
        before = len(self.words())
        time.sleep(during_s)
        return len(self.words()) == before


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def begin(kernel_s: float = 0.0) -> Job:
        folder = tmp_path / str(len(jobs))
        os.makedirs(folder)
        jobs.append(Job(folder, kernel_s))
        jobs[-1].goes_on(1)
        return jobs[-1]

    yield begin
    for job in jobs:
        job.process.kill()
        job.process.wait()


@pytest.fixture
def driver() -> CudaDriver:
    return CudaDriver(deadline_s=60.0)
