"""What a resize costs, from the request until all ranks run on their new devices: within a node, and over
nodes, where only the ranks that change their node are dumped and restored.
"""

from __future__ import annotations

import time
from functools import cache

from benchmarks._fleet import fleet, log, submit, wait
from benchmarks.registry import benchmark
from midstep.client.fleet import FleetClient
from midstep.client.types import JobView, MoveView

ROUNDS = 3


@benchmark(
    "resize-node", bar=1.0, unit="s", against="an absolute bound; four DDP ranks on 4, 2, 1 and 3 devices"
)
def resize_node() -> list[float]:
    """Nothing is dumped."""
    moves = _moves(nodes=1, devices=4, sizes=(2, 1, 3, 4))
    assert all(move.nbytes == 0 for move in moves), "something was dumped"
    return [move.duration_s for move in moves]


@benchmark(
    "resize-nodes",
    bar=0.5,
    unit="s",
    against="beyond the dump and restore of the ranks that move; four DDP ranks, on two nodes and on one",
)
def resize_nodes() -> list[float]:
    """Two of four ranks are dumped and restored."""
    moves = _moves(nodes=2, devices=2, sizes=(1, 4))
    return [move.duration_s - _longest(move, "dump") - _longest(move, "restore") for move in moves]


def _longest(move: MoveView, name: str) -> float:
    """The slowest node's step."""
    return max(step.duration_s for step in move.steps if step.step.startswith(f"{name}@"))


@cache
def _moves(nodes: int, devices: int, sizes: tuple[int, ...]) -> list[MoveView]:
    with fleet(nodes=nodes, devices=devices) as client:
        words = ("--params", "small", "--steps", "10000000", "--print-steps")
        job = wait(client, submit(client, "ddp.py", *words, ranks=4), "running")
        while "step" not in log(client, job):
            time.sleep(0.2)
        for size in sizes * ROUNDS:
            time.sleep(0.5)
            _resize(client, job, size)
        moves = client.job(job.job_id).moves
    return [move for move in moves if move.kind == "resize"][1:]  # the first one warms the caches


def _resize(client: FleetClient, job: JobView, size: int) -> None:
    client.resize(job.job_id, size)
    view = client.wait(job.job_id, lambda v: v.state == "running" and v.devices_now == size, 60.0)
    if not view.moves[-1].ok:
        raise RuntimeError(view.moves[-1].message)
