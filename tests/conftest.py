"""For all tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SHARED_MEMORY = Path("/dev/shm")
# Tests that start ranks, nodes and fleets have the machine to themselves, one after the other; the others run
# beside them, in a process of their own.
WITH_RANKS = frozenset(
    ("agent", "conformance", "drivers", "fleet", "gpu", "mailbox", "proxy", "runtime", "setup", "zoo")
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by a script, with "&": it is inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """For `pytest -n 2`."""
    return _ByRoom(config, log)


class _ByRoom(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        """What one process runs, one after the other."""
        path, _, _ = nodeid.partition("::")
        return "ranks" if _room(Path(__file__).parent.parent / path) in WITH_RANKS else path


@pytest.fixture(autouse=True)
def ranks_without_a_cell_leave_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """A rank that is killed leaves its mark in /dev/shm. In a cell that is its home's, which goes with it;
    tests that start ranks without a cell have the machine's, where `tests/fleet` would find it."""
    room = _room(request.path)
    if room == "fleet" or room not in WITH_RANKS:
        yield
        return
    before = set(SHARED_MEMORY.glob("midstep-splice-*"))
    yield
    for folder in set(SHARED_MEMORY.glob("midstep-splice-*")) - before:
        if not any(_lives(mark) for mark in folder.glob("rank-*")):  # else of tests that run beside these
            shutil.rmtree(folder, ignore_errors=True)


def _room(path: Path) -> str:
    """The folder under `tests` that it is in."""
    return path.relative_to(Path(__file__).parent).parts[0]


def _lives(mark: Path) -> bool:
    try:
        return os.path.exists(f"/proc/{int(mark.read_text())}")
    except FileNotFoundError:
        return False
    except ValueError:
        return True  # just being written
