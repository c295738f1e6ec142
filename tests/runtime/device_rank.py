"""A rank whose 'GPU' is shared host memory: reduces tensors with others while it is parted from them at any
moment, checks every result against the tree computed by itself, and says how it went.

usage: device_rank.py FOLDER ME SIZE COUNT SEED
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from midstep.mailbox.contract import DType, Kind, Op, ReduceOp
from midstep.mailbox.seat import Seating
from midstep.runtime.device.arithmetic import combine
from midstep.runtime.device.exchange import Exchange
from midstep.runtime.device.ticket import DeviceTicket

FOLDER, ME, SIZE, COUNT, SEED = Path(sys.argv[1]), *map(int, sys.argv[2:6])
DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int32]


class HostMemory:
    """Files instead of device memory; what is unmapped can no longer be read."""

    def __init__(self) -> None:
        self._maps: dict[int, tuple[mmap.mmap, Path | None]] = {}
        self._count = 0

    def allocate(self, nbytes: int) -> tuple[torch.Tensor, int, bytes]:
        self._count += 1
        path = FOLDER / f"segment-{ME}-{self._count}"
        path.write_bytes(b"")
        os.truncate(path, nbytes)
        tensor, address = self._map(path, nbytes, path)
        return tensor, address, path.name.encode()

    def free(self, address: int) -> None:
        path = self._maps.pop(address)[1]
        assert path is not None
        path.unlink()

    def open(self, handle: bytes, nbytes: int) -> tuple[torch.Tensor, int]:
        return self._map(FOLDER / handle.rstrip(b"\0").decode(), nbytes, None)

    def close(self, address: int) -> None:
        del self._maps[address]

    def hide(self) -> None: ...

    def _map(self, path: Path, nbytes: int, own: Path | None) -> tuple[torch.Tensor, int]:
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), nbytes)
        tensor = torch.frombuffer(memory, dtype=torch.uint8)
        self._maps[tensor.data_ptr()] = (memory, own)
        return tensor, tensor.data_ptr()

    def mark(self, tensor: Any) -> float:
        return time.monotonic() + chance.random() * 0.004  # when the 'device' is done with it

    def passed(self, mark: float) -> bool:
        return time.monotonic() >= mark

    def done_with(self, mark: float) -> None: ...

    def after(self, mark: float) -> None:
        time.sleep(max(0.0, mark - time.monotonic()))

    @contextlib.contextmanager
    def queue(self) -> Generator[None]:
        yield

    def finish(self) -> None: ...

    def until(self, mark: float) -> None:
        self.after(mark)

    def follow(self) -> float:
        return self.mark(None)


class ByFile:
    """The other way: every part is a file."""

    peer = -1

    def __init__(self, ticket: DeviceTicket, seq: int) -> None:
        self._ticket, self._seq = ticket, seq
        draft = FOLDER / f"draft-{ME}"
        torch.save(ticket.tensor, draft)
        draft.rename(self._path(ME))

    def _path(self, rank: int) -> Path:
        return FOLDER / f"mail-{self._seq}-{rank}"

    def done(self) -> bool:
        return all(self._path(rank).exists() for rank in range(SIZE))

    def wait(self, timeout_s: float | None) -> None:
        while not self.done():
            time.sleep(0.001)

    def add_done_callback(self, fn: Any) -> None:
        raise NotImplementedError

    def land(self) -> None:
        parts = [torch.load(self._path(rank)) for rank in range(SIZE)]
        combine(parts, self._ticket.op.reduce, self._ticket.tensor)


def seated() -> Seating | None:
    try:
        epoch, device, ranks = json.loads((FOLDER / f"seat-{ME}").read_text())
    except (OSError, ValueError):
        return None
    return Seating(epoch, device, tuple(ranks))


def part(seq: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + seq * 101 + rank)
    shape = random.Random(SEED * 7 + seq).choice([1, 5, 1000, 40_000])
    dtype = DTYPES[seq % len(DTYPES)]
    return (torch.randn(shape, generator=generator) * 1000).to(dtype)


def expected(seq: int, op: Op) -> torch.Tensor:
    out = part(seq, 0)
    combine([part(seq, rank) for rank in range(SIZE)], op.reduce, out)
    return out


def mail(ticket: DeviceTicket) -> None:
    global mailed
    mailed += 1
    other = ByFile(ticket, ticket.seq)
    ticket.mailed, ticket.land = other, other.land


def check(seq: int, op: Op, ticket: DeviceTicket, tensor: torch.Tensor) -> None:
    ticket.wait(60.0)
    wanted = expected(seq, op)
    same = torch.equal(tensor.view(torch.uint8), wanted.view(torch.uint8))
    assert same, f"rank {ME}, operation {seq}: {tensor[:4]} instead of {wanted[:4]}"


faulthandler.register(10)
chance = random.Random(SEED + ME)
mailed = 0
torch.set_num_threads(1)
exchange = Exchange(FOLDER.name, ME, HostMemory(), seated)
open_ones: list[tuple[int, Op, DeviceTicket, torch.Tensor]] = []
seq = 0
for number in range(COUNT):
    seq += random.Random(SEED + number).choice([1, 1, 1, 2])  # some numbers are other operations'
    floating = DTYPES[seq % len(DTYPES)].is_floating_point
    reduce = [ReduceOp.SUM, ReduceOp.AVG if floating else ReduceOp.MAX][number % 2]
    op = Op(Kind.ALLREDUCE, 77, DType.float32, reduce)
    tensor = part(seq, ME)
    ticket = exchange.post(77, range(SIZE), ME, op, seq, tensor, mail)
    if chance.random() < 0.2:
        ticket.add_done_callback(lambda: None)
    open_ones.append((seq, op, ticket, tensor))
    if chance.random() < 0.4 or len(open_ones) > 20:
        chance.shuffle(open_ones)
        while open_ones:
            check(*open_ones.pop())
    if chance.random() < 0.1:
        time.sleep(chance.random() * 0.02)
while open_ones:
    check(*open_ones.pop(0))
print(json.dumps({"mailed": mailed, "done": COUNT}), flush=True)
sys.stdin.read()  # others may still take what lies here
