"""A small data-parallel training that prints every loss, writes what it has done into its work directory, and
ends with a sum of its weights. Arguments: steps, seconds that each sleeps."""

import hashlib
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(4)]))
optimizer = torch.optim.Adam(model.parameters())
torch.manual_seed(rank + 1)
for step in range(int(sys.argv[1])):
    loss = (model(torch.randn(8, 64)) - torch.randn(8, 64)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("step", step, loss.item().hex(), flush=True)
    with open(f"steps-{rank}", "a") as file:
        file.write(f"{step}\n")
    time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0.05)
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters()))
with open(f"steps-{rank}") as file:
    print("weights", digest.hexdigest(), len(file.readlines()), flush=True)
dist.destroy_process_group()
