"""One command that spawns its own ranks, with a rendezvous of its own: `file` or `tcp`."""

import os
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def main(rank: int, world: int, url: str) -> None:
    dist.init_process_group("gloo", init_method=url, rank=rank, world_size=world)
    torch.manual_seed(rank)
    value = torch.randn(500)
    for step in range(60):
        dist.all_reduce(value)
        value = value / world + torch.randn(500)
        if rank == 0:
            print("step", step, value.double().sum().item(), flush=True)
        time.sleep(0.03)
    dist.destroy_process_group()


if __name__ == "__main__":
    url = "tcp://127.0.0.1:29876" if sys.argv[1] == "tcp" else f"file://{os.getcwd()}/meet"
    mp.spawn(main, args=(2, url), nprocs=2)
