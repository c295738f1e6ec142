"""Two processes that hand a lease to and fro: handover.py futex|kernel|busy RANK FOLDER COUNT

At each turn, futex: nothing; kernel: one small kernel and a synchronisation; busy: some ms of work.
"""

import sys
import time
from pathlib import Path

import torch

from control import Counters

KIND, RANK, FOLDER, COUNT = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
counters = Counters(FOLDER / "counters")
x, y = torch.ones(1024, device="cuda"), torch.randn(4096, 4096, device="cuda")
(y @ y).sum().item()
torch.cuda.synchronize()
print("ready", flush=True)
while not (FOLDER / "go").exists():
    time.sleep(0.01)


def turn():
    if KIND == "kernel":
        x.mul_(1.0)
    elif KIND == "busy":
        for _ in range(2):
            torch.mm(y, y)
    if KIND != "futex":
        torch.cuda.synchronize()


for kind in ("alone", "together"):
    if kind == "alone" and RANK == 1:
        continue
    begun = time.perf_counter()
    for i in range(COUNT):
        if kind == "together":
            counters.wait(0, 2 * i + RANK)
        turn()
        if kind == "together":
            counters.put(0, 2 * i + RANK + 1)
    print("step", kind, f"{(time.perf_counter() - begun) / COUNT * 1e6:.2f} us a turn", flush=True)
print("done", flush=True)
