"""Holds so many GB on the device, and computes a little: ballast.py GB"""

import sys
import time

import torch

blocks = [
    torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda") for _ in range(int(sys.argv[1]))
]
total = sum(int(block.sum()) for block in blocks)
print("ready", flush=True)
while True:
    assert sum(int(block.sum()) for block in blocks) == total
    print("good", flush=True)
    time.sleep(0.2)
