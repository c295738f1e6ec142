"""Kernels of a chosen length, one after another: spin.py SECONDS [COUNT]; a checked sum after each."""

import sys
import time

import torch

seconds, count = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10**9
x = torch.ones(1 << 24, device="cuda")
begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
torch.cuda._sleep(1000)
begin.record()
torch.cuda._sleep(100_000_000)
end.record()
end.synchronize()
cycles = int(seconds * 100_000_000 / (begin.elapsed_time(end) / 1000))
print("ready", flush=True)
for i in range(count):
    if cycles:
        torch.cuda._sleep(cycles)
    x.mul_(1.0)
    total = float(x.sum())
    print(
        "step",
        i,
        f"{time.monotonic():.4f}",
        "ok" if total == float(1 << 24) else f"DIFFERENT {total}",
        flush=True,
    )
    time.sleep(0.001)
print("done", flush=True)
