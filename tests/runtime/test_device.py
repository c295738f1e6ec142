"""Ranks that share a GPU, with shared host memory in its place: everything but CUDA's own calls."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from midstep.mailbox import ground
from midstep.mailbox.contract import ReduceOp
from midstep.proxy import parting
from midstep.runtime.device.arithmetic import combine, defined
from midstep.runtime.device.table import ENTRIES, Spot, Table, Way

RANK = Path(__file__).parent / "device_rank.py"


class Ranks:
    """Ranks on one device, or on two."""

    def __init__(self, folder: Path, size: int, count: int, seed: int) -> None:
        self.folder, self.size, self.epoch = folder, size, 1
        self.seat(1)
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(RANK), str(folder), *map(str, (rank, size, count, seed))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for rank in range(size)
        ]  # fmt: skip
        self.pids = [process.pid for process in self.processes]

    def seat(self, devices: int) -> None:
        for rank in random.sample(range(self.size), self.size):
            device = rank * devices // self.size
            ranks = [r for r in range(self.size) if r * devices // self.size == device]
            draft = self.folder / "draft-seat"
            draft.write_text(json.dumps([self.epoch, device, ranks]))
            draft.rename(self.folder / f"seat-{rank}")

    def is_now(self, epoch: int) -> bool:
        return epoch == self.epoch

    def stands(self) -> list[ground.Stand]:
        try:
            with open(f"{ground.FOLDER}/{ground.name(self.folder.name, self.epoch, 0)}", "rb") as file:
                return ground.Ground(memoryview(bytearray(file.read()))).stands()
        except OSError:
            return []

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for name in os.listdir(ground.FOLDER):
            if self.folder.name in name or name == Path(ground.SIGN).name:
                os.unlink(f"{ground.FOLDER}/{name}")


@pytest.fixture
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    made: list[Ranks] = []

    def make(size: int, count: int, seed: int) -> Ranks:
        made.append(Ranks(tmp_path_factory.mktemp(f"device{os.getpid()}x"), size, count, seed))
        return made[-1]

    yield make
    for group in made:
        group.end()


def outcomes(group: Ranks) -> list[dict[str, int]]:
    found: list[dict[str, int]] = []
    for process in group.processes:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"a rank ended with {process.wait()}"
        found.append(json.loads(line))
    return found


@pytest.mark.parametrize("size", [3, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 4, 5))])
def test_every_result_is_the_trees(ranks, size: int) -> None:  # type: ignore[no-untyped-def]
    group = ranks(size, 200, size)
    assert outcomes(group) == [{"mailed": 0, "done": 200}] * size


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 6))])
def test_parted_and_resized_at_any_moment(ranks, seed: int) -> None:  # type: ignore[no-untyped-def]
    """A parting that is called off, one after which they go on as before, and ones after which they sit on
    one device or on two."""
    chance, group = random.Random(seed), ranks(4, 500, seed)
    while parting.part(group.pids, 20) == 0:
        time.sleep(0.01)  # nobody has contributed yet
    parting.call_back(group.pids, group.is_now)
    for turn in range(12):
        time.sleep(chance.random() * 0.1)
        parting.part(group.pids, 20.0)
        for name in os.listdir(ground.FOLDER):
            if name.startswith(ground.PREFIX + group.folder.name) and name.endswith(f"-{group.epoch}-0"):
                assert ground.epoch_of(name) == group.epoch
        if turn % 3:
            group.epoch += 1
            group.seat(chance.choice([1, 2]))
        parting.call_back(group.pids, group.is_now)
    group.epoch += 1
    parting.part(group.pids, 20.0)
    group.seat(1)
    parting.call_back(group.pids, group.is_now)
    found = outcomes(group)
    assert [one["done"] for one in found] == [500] * 4
    assert any(one["mailed"] for one in found)


def test_a_rank_that_cannot_run_is_named_and_the_others_go_on(ranks) -> None:  # type: ignore[no-untyped-def]
    group = ranks(2, 800, 5)
    while group.stands() != [ground.Stand.HERE] * 2:
        time.sleep(0.001)
    os.kill(group.pids[0], signal.SIGSTOP)
    with pytest.raises(parting.StillTogether, match="ranks did not let go"):
        parting.part(group.pids, 0.5)
    parting.call_back(group.pids, group.is_now)
    os.kill(group.pids[0], signal.SIGCONT)
    assert [one["done"] for one in outcomes(group)] == [800] * 2


def test_a_link_that_a_job_has_put_in_the_agents_way_leads_nowhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    os.symlink(precious, ground.SIGN)
    try:
        parting.part([os.getpid()], 1.0)
    finally:
        parting.call_back([os.getpid()], lambda epoch: True)
    assert precious.read_text() == "kept" and not os.path.lexists(ground.SIGN)


def test_an_entry_serves_its_next_operation_only_when_all_have_the_result(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "table"), 2, "0")
    spot = Spot(1, 0, 512)
    assert table.claim(3, 100, 7) is Way.OPEN and table.contribute(3, 0, spot) == 1
    assert table.claim(3, 100, 7) is Way.DEVICE and table.has(3, 0) and not table.has(3, 1)
    assert table.claim(3 + ENTRIES, 100, 7) is Way.BUSY
    assert table.contribute(3, 1, spot) == 2
    table.finish(3, 1)
    assert table.ready(3) and not table.over(3) and table.claim(3 + ENTRIES, 100, 7) is Way.BUSY
    table.took(3)
    assert table.over(3) and table.claim(3 + ENTRIES, 100, 7) is Way.OPEN and not table.is_of(3)
    with pytest.raises(ValueError, match="do not agree: 200 bytes here, 100 elsewhere"):
        table.claim(3 + ENTRIES, 200, 7)
    table.mail(3 + ENTRIES)
    assert table.claim(3 + ENTRIES, 100, 7) is Way.MAIL and table.claim(3, 100, 7) is Way.BUSY
    table.mail(3 + ENTRIES)
    assert table.claim(3, 100, 7) is Way.OPEN
    table.close()


def test_the_bits_are_the_proxys() -> None:
    """The same tree, and the same rounding at each of its nodes, as on the host."""
    import numpy as np

    from midstep.mailbox.contract import DType
    from midstep.proxy.arithmetic import kernel
    from midstep.proxy.tree import reduce

    for name in ("float32", "float64", "float16", "bfloat16", "int32", "int64"):
        dtype = getattr(torch, name)
        for op in ReduceOp:
            if not defined(op, dtype) or (op is ReduceOp.AVG and not dtype.is_floating_point):
                continue
            for size in (2, 3, 5, 7, 8):
                parts = [(torch.randn(513) * 50).to(dtype) for _ in range(size)]
                pieces = {(r, r + 1): p.view(torch.uint8).numpy() for r, p in enumerate(parts)}
                host = np.empty(513 * dtype.itemsize, np.uint8)
                last = size if op is ReduceOp.AVG else 1
                reduce(kernel(DType[name], op), pieces, (0, size), [host], last)
                out = torch.empty(513, dtype=dtype)
                combine(parts, op, out)
                assert out.view(torch.uint8).numpy().tobytes() == host.tobytes(), (name, op, size)
