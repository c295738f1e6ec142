"""A four-rank job whose step takes as long as asked (arithmetic, no sleep): slow_step.py SECONDS."""

from __future__ import annotations

import sys
import time

import torch
import torch.distributed as dist

torch.set_num_threads(1)
dist.init_process_group("gloo")
seconds = float(sys.argv[1])
a = torch.randn(128, 128)
total = torch.ones(1 << 16)
for step in range(1_000_000):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        a = (a @ a).clamp(-1, 1)
    dist.all_reduce(total)
    if dist.get_rank() == 0:
        print("step", step, flush=True)
