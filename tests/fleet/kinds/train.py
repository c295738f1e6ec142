"""DistributedDataParallel with dropout, an optimiser with state and a checkpoint at the end."""

import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group()
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(1)
model = DistributedDataParallel(
    nn.Sequential(nn.Linear(32, 64), nn.Dropout(0.2), nn.Tanh(), nn.Linear(64, 1))
)
optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
torch.manual_seed(100 + rank)
for step in range(60):
    inputs = torch.randn(16, 32)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if rank == 0:
        print("step", step, loss.item(), flush=True)
    time.sleep(0.03)
if rank == 0:
    torch.save(model.state_dict(), "model.pt")
    print("weights", sum(p.double().abs().sum().item() for p in model.parameters()), flush=True)
dist.destroy_process_group()
