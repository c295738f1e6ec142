"""Fine-tuning: a frozen model of 25 M parameters, and a small head that is trained under Adam. Prints steps
until it is ended."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

WIDTH, LAYERS = 1024, 24


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    frozen = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]).requires_grad_(False)
    head = nn.parallel.DistributedDataParallel(nn.Linear(WIDTH, 64))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-4)
    chance = torch.Generator().manual_seed(100 + dist.get_rank())
    step = 0
    while True:
        features = frozen(torch.randn(4, WIDTH, generator=chance))
        loss = head(features).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print("step", step, loss.item(), flush=True)
        step += 1


if __name__ == "__main__":
    main()
