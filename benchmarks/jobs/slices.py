"""Five small models of different kinds under DDP, timed from inside: prints `[mean step in s, loss]` as JSON.
Plain PyTorch. The mean of all but the first third: ranks that take turns go first in one step and last in the
next, so that the median of one rank's steps says little.

usage: slices.py mlp|cnn|gpt|embedding|tiny STEPS [--hand]     --hand: a parameter is written between steps
"""

from __future__ import annotations

import json
import sys
import time

import torch
import torch.distributed as dist
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor]


class Gpt(nn.Module):
    def __init__(self, words: int = 256, width: int = 128, length: int = 64) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(width, words)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))
        self.register_buffer("order", torch.arange(length))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(self.words(x) + self.places(self.order), mask=self.mask, is_causal=True)
        return self.head(y).transpose(1, 2)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def cnn() -> nn.Module:
    blocks: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 16, 10))


def embedding() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(20_000, 64), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def tiny() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(60):
        layers += [nn.Linear(64, 64), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def batch(kind: str, generator: torch.Generator) -> Batch:
    def numbers(most: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, most, shape, generator=generator)

    if kind == "gpt":
        return numbers(256, 32, 64), numbers(256, 32, 64)
    if kind == "embedding":
        return numbers(20_000, 4096, 32), numbers(10, 4096)
    shape = {"mlp": (2048, 512), "cnn": (256, 3, 32, 32), "tiny": (1024, 64)}[kind]
    return torch.randn(*shape, generator=generator), numbers(10, shape[0])


MODELS = {"mlp": mlp, "cnn": cnn, "gpt": Gpt, "embedding": embedding, "tiny": tiny}


def main() -> None:
    kind, steps, by_hand = sys.argv[1], int(sys.argv[2]), "--hand" in sys.argv
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = MODELS[kind]()
    ddp = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(ddp.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(dist.get_rank())
    first = next(model.parameters())
    began_s, first_counted = 0.0, steps // 3
    for step in range(steps):
        if step == first_counted:
            began_s = time.perf_counter()
        x, y = batch(kind, generator)
        loss = nn.functional.cross_entropy(ddp(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if by_hand:
            with torch.no_grad():
                first.mul_(1.0)
    mean_s = (time.perf_counter() - began_s) / (steps - first_counted)
    dist.barrier()
    print(json.dumps([mean_s, loss.item().hex()]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
