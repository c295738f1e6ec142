"""A DDP job whose steps are timed from inside: prints `median_step_s X` from rank 0. Runs under torchrun and
Midstep alike.

usage: ddp.py [--params small|large] [--optimizer sgd|adam] [--steps N] [--checkpoint FILE] [--print-steps]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
import torch.distributed as dist
from torch import nn

SIZES = {"small": (128, 8), "large": (1024, 8)}  # about 100 k and 25 M parameters; batch per rank


def build(params: str) -> nn.Module:
    width = SIZES[params][0]
    if params == "small":
        return nn.Sequential(nn.Linear(width, 3 * width), nn.ReLU(), nn.Linear(3 * width, width))
    return nn.Sequential(
        nn.Linear(width, 4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, 4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, width),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--params", choices=sorted(SIZES), default="large")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--print-steps", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = build(args.params)
    ddp = nn.parallel.DistributedDataParallel(model)
    if args.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01, momentum=0.9)
    else:
        optimizer = torch.optim.Adam(ddp.parameters(), lr=1e-4)
    first = 0
    if args.checkpoint and os.path.exists(args.checkpoint):
        state = torch.load(args.checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    generator = torch.Generator().manual_seed(100 + rank)
    width, batch = SIZES[args.params]
    times: list[float] = []
    for step in range(first, first + args.steps):
        started = time.perf_counter()
        x = torch.randn(batch, width, generator=generator)
        loss = (ddp(x) - x).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
        if rank == 0 and args.print_steps:
            print(f"step {step} loss {loss.item():.17g} at {time.time():.6f}", flush=True)
    if args.checkpoint and rank == 0:
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": first + args.steps},
            args.checkpoint,
        )
    if rank == 0:
        print(f"parameters {sum(p.numel() for p in model.parameters())}")
        print(f"median_step_s {statistics.median(times[len(times) // 5 :]):.9f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
