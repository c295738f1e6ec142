"""DDP training at a given pace: paced.py STEPS SECONDS_A_STEP. A step computes, agrees, and rests until the
rank has been busy for its time; so a job's length depends little on what else the machine does, and ranks
that take turns on a device take as many times as long. Prints `step N at T` from rank 0.
"""

from __future__ import annotations

import sys
import time

import torch
import torch.distributed as dist
from torch import nn

torch.set_num_threads(1)
dist.init_process_group("gloo")
count, pace_s = int(sys.argv[1]), float(sys.argv[2])
torch.manual_seed(dist.get_rank())
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(count):
    begun_s = time.process_time()
    x = torch.randn(32, 64)
    loss = model(x).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    time.sleep(max(0.0, pace_s - (time.process_time() - begun_s)))
    if dist.get_rank() == 0:
        print(f"step {step} at {time.time():.6f}", flush=True)
dist.destroy_process_group()
