"""A training script with DataLoader workers, moved in the middle of steps: the same losses and weights to
the last bit.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.nodes import Job, Node

EPOCHS = 20


@pytest.mark.soak
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_training_is_bit_exact_over_moves(new_job: Callable[..., Job], nodes: tuple[Node, Node]) -> None:
    alone, moved = new_job("alone"), new_job("moved")
    for job in (alone, moved):
        shutil.copy(Path(__file__).parent / "train.py", job.outside / "work")
        job.start([sys.executable, "train.py"], EPOCHS=str(EPOCHS))
        for turn, epoch in enumerate((3, 9, 10, 15)):
            if job is moved:
                job.wait_for(f"\n{epoch} ")
                job.move(nodes[(turn + 1) % 2])
        assert job.finish() == 0, job.log()[-2000:]
    assert moved.log() == alone.log()
    assert len(alone.log().splitlines()) == EPOCHS * 16 + 1
