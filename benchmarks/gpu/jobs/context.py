"""A process that uses more and more of CUDA, a stage a line of its command file, and holds on."""

import time
from pathlib import Path

import torch

print("stage imported", flush=True)
stages = {
    "first tensor": lambda: torch.zeros(1, device="cuda"),
    "matrix product": lambda: torch.ones(256, 256, device="cuda") @ torch.ones(256, 256, device="cuda"),
    "convolution": lambda: torch.nn.functional.conv2d(
        torch.ones(1, 3, 32, 32, device="cuda"), torch.ones(8, 3, 3, 3, device="cuda")
    ),
}
for number, (name, work) in enumerate(stages.items(), 1):
    while not Path(f"go{number}").exists():
        time.sleep(0.01)
    work()
    torch.cuda.synchronize()
    print("stage", name, torch.cuda.memory_reserved(), flush=True)
while True:
    time.sleep(1)
