"""Train a small network to add binary numbers bit by bit: one process, nothing of torch.distributed.

    python plain.py --steps 200

The data come from Python's own random generator, a thread keeps a running average, and an open file without a
name holds the history: all of it is state that a suspended job must take along. Prints every step's loss with
all its digits, then the hash of the weights and of the history. Two runs with the same arguments print the
same.
"""

import argparse
import hashlib
import queue
import random
import tempfile
import threading

import torch
import torch.nn as nn
import torch.nn.functional as F

BITS = 16


def make_batch(chance: random.Random, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of numbers and their sums, as bits, lowest first."""
    pairs = [(chance.getrandbits(BITS - 1), chance.getrandbits(BITS - 1)) for _ in range(size)]
    inputs = [[[first >> bit & 1, second >> bit & 1] for bit in range(BITS)] for first, second in pairs]
    sums = [[(first + second) >> bit & 1 for bit in range(BITS)] for first, second in pairs]
    return torch.tensor(inputs, dtype=torch.float32), torch.tensor(sums, dtype=torch.float32)


class Adder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(2, width, batch_first=True)
        self.out = nn.Linear(width, 1)

    def forward(self, bits: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(bits)[0]).squeeze(-1)


class Averager(threading.Thread):
    """Takes losses from a queue, in order, and writes their running average to a file that has no name."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.losses: queue.Queue[float | None] = queue.Queue()
        self.file = tempfile.TemporaryFile("w+", dir=".")  # noqa: SIM115  # open to the end of the program

    def run(self) -> None:
        average = 0.0
        while (loss := self.losses.get()) is not None:
            average = 0.9 * average + 0.1 * loss
            self.file.write(f"{average:.17g}\n")

    def finish(self) -> str:
        self.losses.put(None)
        self.join()
        self.file.seek(0)
        return hashlib.sha256(self.file.read().encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    chance = random.Random(args.seed)
    model = Adder(args.width)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    averager = Averager()
    averager.start()
    for step in range(args.steps):
        bits, sums = make_batch(chance, args.batch)
        loss = F.binary_cross_entropy_with_logits(model(bits), sums)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        averager.losses.put(loss.item())
        print(f"step {step} loss {loss.item():.17g}", flush=True)
    print(f"history sha256 {averager.finish()}", flush=True)
    weights = b"".join(value.detach().numpy().tobytes() for value in model.parameters())
    print(f"weights sha256 {hashlib.sha256(weights).hexdigest()}", flush=True)


if __name__ == "__main__":
    main()
