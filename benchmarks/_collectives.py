"""What the ranks of `benchmarks/collectives.py` run: gloo and the mailbox in turn, in the same two
processes."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from midstep.mailbox.contract import Buffer, Channel, DType, Kind, Op

Times = dict[int, tuple[list[float], list[float]]]  # bytes -> seconds of ours, of gloo's


def measure(channel: Channel, rank: int, size: int, address: str, plan: dict[int, int], rounds: int) -> Times:
    """For each size in bytes: `rounds` times `plan[size]` all-reduces of each, in turn."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    gid = channel.open_group("env://", "bench", list(range(size)), rank)
    times: Times = {}
    for nbytes, count in plan.items():
        tensor = torch.ones(nbytes // 4)
        memory = Buffer(tensor.data_ptr(), nbytes, tensor)
        op = Op(Kind.ALLREDUCE, gid, DType.float32)
        ours: list[float] = []
        theirs: list[float] = []
        _ours(channel, op, memory, 2)
        _gloo(tensor, 2)
        for _ in range(rounds):
            dist.barrier()
            theirs.append(_gloo(tensor, count))
            dist.barrier()
            ours.append(_ours(channel, op, memory, count))
        times[nbytes] = (ours, theirs)
    dist.destroy_process_group()
    return times


def _ours(channel: Channel, op: Op, memory: Buffer, count: int) -> float:
    started_s = time.perf_counter()
    for _ in range(count):
        channel.post(op, memory, memory).wait(60)
    return (time.perf_counter() - started_s) / count


def _gloo(tensor: Any, count: int) -> float:
    started_s = time.perf_counter()
    for _ in range(count):
        dist.all_reduce(tensor)
    return (time.perf_counter() - started_s) / count
