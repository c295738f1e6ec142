"""Train a convolutional classifier on scikit-learn's handwritten digits, fed by DataLoader worker processes.

    python digits.py                                       one process (and its two workers)
    torchrun --nproc_per_node 2 digits.py --epochs 3       two (and two workers each)

The workers distort the images at random, BatchNorm keeps running statistics. Prints every step's loss
(averaged over the ranks) with all its digits, the accuracy on images held back, and the hash of the weights,
which every rank must have alike. Two runs with the same arguments print the same, to the last digit. Writes
nothing.
"""

import argparse
import hashlib
import os

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

HELD_BACK = 297


class Digits(Dataset):
    """8 x 8 images of 0 to 16; those for training are shifted, turned and made noisy anew each time."""

    def __init__(self, train: bool) -> None:
        data = load_digits()
        part = slice(None, -HELD_BACK) if train else slice(-HELD_BACK, None)
        self.images = torch.from_numpy(data.images[part]).float().unsqueeze(1) / 16
        self.labels = torch.from_numpy(data.target[part]).long()
        self.train = train

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = F.interpolate(self.images[index].unsqueeze(0), size=16, mode="bilinear")[0]
        if self.train:
            turn, dx, dy = (torch.rand(3) - 0.5).mul(torch.tensor([0.4, 0.2, 0.2])).tolist()
            matrix = torch.tensor([[1.0, -turn, dx], [turn, 1.0, dy]]).unsqueeze(0)
            grid = F.affine_grid(matrix, [1, 1, 16, 16], align_corners=False)
            image = F.grid_sample(image.unsqueeze(0), grid, align_corners=False)[0]
            image = image + 0.05 * torch.randn_like(image)
        return image, self.labels[index]


def build_model(width: int) -> nn.Module:
    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *stage(1, width),
        *stage(width, width),
        nn.MaxPool2d(2),
        *stage(width, 2 * width),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 16, 10),
    )


def hash_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.named_parameters()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=1_000_000, help="stop after so many, whatever the epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=32, help="channels of the first stage")
    parser.add_argument("--batch", type=int, default=64, help="images a rank and step")
    parser.add_argument("--workers", type=int, default=2, help="DataLoader worker processes a rank")
    parser.add_argument("--persistent-workers", action="store_true", help="keep them from epoch to epoch")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def build_loader(args: argparse.Namespace, rank: int, world: int) -> tuple[DataLoader, DistributedSampler]:
    data = Digits(train=True)
    sampler = DistributedSampler(data, num_replicas=world, rank=rank, seed=args.seed, drop_last=True)
    loader = DataLoader(
        data,
        batch_size=args.batch,
        sampler=sampler,
        drop_last=True,
        num_workers=args.workers,
        persistent_workers=args.persistent_workers and args.workers > 0,
        generator=torch.Generator().manual_seed(args.seed * 1_000_003 + rank),
    )
    return loader, sampler


def average(loss: torch.Tensor, world: int) -> float:
    shown = loss.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(shown)
    return shown.item() / world


def train(args: argparse.Namespace, rank: int, world: int) -> nn.Module:
    torch.manual_seed(args.seed)
    bare = build_model(args.width)
    model = DistributedDataParallel(bare) if dist.is_initialized() else bare
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loader, sampler = build_loader(args, rank, world)
    step = 0
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            if step == args.steps:
                return bare
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            shown = average(loss, world)
            if rank == 0:
                print(f"step {step} loss {shown:.17g}", flush=True)
            step += 1
    return bare


@torch.no_grad()
def measure_accuracy(model: nn.Module) -> float:
    model.eval()
    data = Digits(train=False)
    images = torch.stack([data[index][0] for index in range(len(data))])
    return (model(images).argmax(1) == data.labels).float().mean().item()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    model = train(args, rank, world)
    found = hash_weights(model)
    if dist.is_initialized():
        everyone = [""] * world
        dist.all_gather_object(everyone, found)
        if set(everyone) != {found}:
            raise SystemExit(f"rank {rank}: the ranks ended with different weights: {everyone}")
        dist.destroy_process_group()
    if rank == 0:
        print(f"accuracy {measure_accuracy(model):.17g}", flush=True)
        print(f"weights sha256 {found}", flush=True)


if __name__ == "__main__":
    main()
