"""Train a small byte-level language model on the source of Python's standard library, with
DistributedDataParallel.

    python lm.py                                    one process
    torchrun --nproc_per_node 2 lm.py --steps 100   two

Prints every step's loss (averaged over the ranks) with all its digits, and at the end the hash of the
weights, which every rank must have alike. Two runs with the same arguments print the same, to the last digit.
Writes nothing, but for --log and --checkpoint. --d-model 512 --layers 8 has 25 million parameters, --d-model
64 has 100 thousand.
"""

import argparse
import hashlib
import os
import sysconfig
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

TEXT_BYTES = 2_000_000


def read_text() -> torch.Tensor:
    """The first two million bytes of the standard library's top-level modules, by name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return torch.frombuffer(bytearray(text[:TEXT_BYTES]), dtype=torch.uint8).long()


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = max(1, width // 32)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Model(nn.Module):
    def __init__(self, width: int, layers: int, length: int, dropout: float) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(256, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, dropout) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def pick_batch(
    text: torch.Tensor, args: argparse.Namespace, step: int, rank: int, world: int
) -> torch.Tensor:
    """This rank's share of the step's windows; which ones depends on seed and step alone."""
    chance = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
    starts = torch.randint(len(text) - args.length - 1, (world, args.batch), generator=chance)[rank]
    return torch.stack([text[start : start + args.length + 1] for start in starts.tolist()])


def hash_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.named_parameters()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--d-model", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--length", type=int, default=128, help="of a window, in bytes")
    parser.add_argument("--batch", type=int, default=16, help="windows a rank and step")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log", type=Path, help="append the losses to this file as well")
    parser.add_argument("--checkpoint", type=Path, help="continue from this file if it exists; save to it")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    return parser.parse_args()


def load(path: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The step to begin with."""
    if path is None or not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"]) + 1


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    part = path.with_suffix(".part")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, part)
    part.replace(path)


def report(args: argparse.Namespace, line: str) -> None:
    print(line, flush=True)
    if args.log:
        with args.log.open("a") as file:
            file.write(line + "\n")


def train(args: argparse.Namespace, rank: int, world: int) -> nn.Module:
    text = read_text()
    torch.manual_seed(args.seed)
    bare = Model(args.d_model, args.layers, args.length, args.dropout)
    optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-3)
    first = load(args.checkpoint, bare, optimizer)
    model = DistributedDataParallel(bare) if dist.is_initialized() else bare
    torch.manual_seed(args.seed * 1_000_003 + rank)  # dropout differs between ranks
    for step in range(first, args.steps):
        window = pick_batch(text, args, step, rank, world)
        logits = model(window[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, 256), window[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shown = loss.detach()
        if dist.is_initialized():
            dist.all_reduce(shown)
        if rank == 0:
            report(args, f"step {step} loss {shown.item() / world:.17g}")
            if args.checkpoint and (step + 1) % args.every == 0:
                save(args.checkpoint, bare, optimizer, step)
    return bare


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    found = hash_weights(train(args, rank, world))
    if dist.is_initialized():
        everyone = [""] * world
        dist.all_gather_object(everyone, found)
        if set(everyone) != {found}:
            raise SystemExit(f"rank {rank}: the ranks ended with different weights: {everyone}")
        dist.destroy_process_group()
    if rank == 0:
        report(args, f"weights sha256 {found}")


if __name__ == "__main__":
    main()
