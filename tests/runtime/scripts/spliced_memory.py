"""Trains ``millions`` of parameters with Adam, ``steps`` times; prints what memory and time it took. Further
arguments: ``shared`` to share a device, ``leased`` to share what the proxy says, ``fused`` for Adam's fused
step.
"""

import importlib
import json
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

millions, steps, options = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
torch.set_num_threads(1)
dist.init_process_group("gloo")
RANK, SIZE = dist.get_rank(), dist.get_world_size()


def part(name):
    return importlib.import_module("_midstep.runtime." + name)


def seat(ranks):
    seating = part("splice.seating")
    seating.use(lambda: seating.Seating(1, 0, ranks))


def pss_bytes():
    with open("/proc/self/smaps_rollup") as lines:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if "kB" in line}["Pss"]


if "leased" not in options:
    seat(tuple(range(SIZE)) if "shared" in options else (RANK,))
# An idle process is one that has loaded what training loads: torch brings much of itself in late.
trivial = DistributedDataParallel(torch.nn.Linear(1, 1))
torch.optim.Adam(trivial.parameters(), fused="fused" in options)
trivial(torch.zeros(1, 1)).sum().backward()
del trivial
idle = pss_bytes()
torch.manual_seed(0)
layers = [torch.nn.Linear(1000, 1000) for _ in range(millions)]
net = DistributedDataParallel(torch.nn.Sequential(*layers), gradient_as_bucket_view=True)
opt = torch.optim.Adam(net.parameters(), lr=1e-3, fused="fused" in options)
data = torch.Generator().manual_seed(RANK)
seconds, whole = [], []
for _ in range(steps):
    begun = time.perf_counter()
    loss = net(torch.randn(2, 1000, generator=data)).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    before = time.perf_counter()
    opt.step()
    whole.append(time.perf_counter() - begun)
    seconds.append(time.perf_counter() - before)
dist.barrier()
used = pss_bytes()
dist.barrier()
counters = part("splice.counters").COUNTERS
memory = part("splice.hook").memory()
dist.destroy_process_group()
print(
    json.dumps(
        {
            "loss": float(loss.detach()).hex(),
            "idle": idle,
            "pss": used,
            "shared": counters.shared_bytes,
            "copied": counters.copied_bytes,
            "steps": [counters.own_steps, counters.executed_steps, counters.followed_steps],
            "step_s": sorted(seconds)[len(seconds) // 2],
            "iteration_s": sorted(whole)[len(whole) // 2],
            "check_s": counters.check_s,
            "execute_s": counters.execute_s,
            "wait_s": counters.wait_s,
            "memory": memory,
        }
    )
)
