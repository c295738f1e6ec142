"""Step times with and without a Python process group, interleaved: overhead.py MODEL STEPS [compiled|graphs]

Ways: plain (no DDP), nccl (DDP over NCCL, world 1), ours (DDP over a process group written in Python).
"""

import os
import statistics
import sys
import time

import models
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _create_work_from_future
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

MODEL, STEPS, SPECIAL = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""


class Ours(dist.ProcessGroup):
    """World 1: every operation is complete when it is posted, in the order of the stream that posted it."""

    def __init__(self, rank, size):
        super().__init__(rank, size)
        self.calls = 0

    def _done(self, value):
        self.calls += 1
        future = Future(devices=[torch.device("cuda:0")])
        future.set_result(value)
        return _create_work_from_future(future)

    def allreduce(self, tensors, opts=None):
        return self._done(tensors)

    def broadcast(self, tensors, opts=None):
        return self._done(tensors)

    def allgather(self, outputs, inputs, opts=None):
        for outs, tensor in zip(outputs, inputs, strict=True):
            outs[0].copy_(tensor)
        return self._done(outputs)

    def barrier(self, opts=None):
        return self._done([])

    def getBackendName(self):
        return "ours"

    def size(self):
        return 1

    def rank(self):
        return 0


def make(way, group):
    torch.manual_seed(0)
    net, shape = models.build(MODEL)
    if way != "plain":
        net = DistributedDataParallel(net, process_group=group, device_ids=[0])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True, capturable=True)
    run = torch.compile(net) if SPECIAL == "compiled" else net
    generator = torch.Generator("cuda").manual_seed(7)
    data = [models.batch(MODEL, shape, generator) for _ in range(4)]
    return run, optimizer, data


def stepper(way, group):
    run, optimizer, data = make(way, group)

    def step(i):
        optimizer.zero_grad(set_to_none=SPECIAL != "graphs")
        loss = models.loss(MODEL, run, data[i % 4] if SPECIAL != "graphs" else data[0])
        loss.backward()
        optimizer.step()
        return loss

    if SPECIAL != "graphs":
        return step
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for i in range(11):
            step(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step(0)
    return lambda i: (graph.replay(), out)[1]


def block(step, count):
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for i in range(count):
        last = step(i)
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / count, float(last).hex()


def main():
    models.deterministic()
    torch.cuda.set_device(0)
    dist.Backend.register_backend(
        "ours", lambda options, more=None: Ours(0, 1), extended_api=True, devices=["cuda"]
    )
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    groups = {"plain": None, "nccl": dist.group.WORLD, "ours": dist.new_group([0], backend="ours")}
    steps = {}
    for way, group in groups.items():
        try:
            steps[way] = stepper(way, group)
            block(steps[way], 5)
        except Exception as error:
            steps.pop(way, None)
            print("result", way, "failed", repr(error)[:400].replace("\n", " "), flush=True)
    print("ready", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.02)
    times = {way: [] for way in steps}
    for _ in range(9):
        bits = {}
        for way, step in steps.items():
            took, bits[way] = block(step, STEPS)
            times[way].append(took)
    for way, found in times.items():
        base = times.get("nccl", found)
        ratio = statistics.median(a / b for a, b in zip(found, base, strict=True))
        to_plain = statistics.median(a / b for a, b in zip(found, times["plain"], strict=True))
        equal = bits[way] == bits["plain"]
        print(
            "result",
            way,
            f"{statistics.median(found):.7f} to_nccl {ratio:.4f} to_plain {to_plain:.4f} equal_bits {equal}",
            flush=True,
        )
    print("done", flush=True)


main()
