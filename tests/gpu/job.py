"""A rank for the tests: steps that check themselves, each after a kernel of a given length: job.py SECONDS"""

import os
import sys

import torch

torch.set_num_threads(1)
COUNT = 1 << 16
parent = os.getppid()
x = torch.ones(COUNT, device="cuda")
state = torch.arange(COUNT, device="cuda", dtype=torch.float32)
begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
torch.cuda._sleep(1000)
begin.record()
torch.cuda._sleep(50_000_000)
end.record()
end.synchronize()
cycles = int(float(sys.argv[1]) * 50_000_000 / (begin.elapsed_time(end) / 1000))
step = 0
while os.getppid() == parent:  # it must not outlive a test that was killed
    if cycles:
        torch.cuda._sleep(cycles)
    state = (state * 3 + x) % 1009
    step += 1
    if step % 50 == 0 or cycles:
        reference = torch.arange(COUNT, dtype=torch.float32)
        for _ in range(step):
            reference = (reference * 3 + 1) % 1009
        good = torch.equal(state.cpu(), reference)
        state, step = torch.arange(COUNT, device="cuda", dtype=torch.float32), 0
        print("good" if good else "DIFFERENT", flush=True)
