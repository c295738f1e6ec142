"""Collectives of a whole world, of subgroups that overlap, and point to point, on random numbers."""

import time

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(rank)
pairs = [sorted((first, (first + 1) % world)) for first in range(world)] if world > 2 else []
groups = [(pair, dist.new_group(pair)) for pair in pairs]
value = torch.randn(3000)
for step in range(60):
    dist.all_reduce(value, op=dist.ReduceOp.SUM)
    value = value / world + torch.randn(3000)
    for pair, group in groups:
        if rank in pair:
            dist.all_reduce(value, group=group)
            value = value / 2
    coming = torch.empty(3000)
    there = dist.isend(value, (rank + 1) % world)
    here = dist.irecv(coming, (rank - 1) % world)
    there.wait()
    here.wait()
    value = value * 0.5 + coming * 0.5
    everyone = [torch.empty(1, dtype=torch.float64) for _ in range(world)]
    dist.all_gather(everyone, value.double().sum().reshape(1))
    if rank == 0:
        print("step", step, [one.item() for one in everyone], flush=True)
    time.sleep(0.03)
dist.destroy_process_group()
