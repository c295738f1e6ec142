"""What NCCL says to two ranks on one GPU."""

import os
import time

import torch
import torch.distributed as dist

begun = time.time()
try:
    dist.init_process_group("nccl", device_id=torch.device("cuda:0"))
    x = torch.ones(1 << 20, device="cuda:0")
    dist.all_reduce(x)
    torch.cuda.synchronize()
    print("step worked", float(x[0]), flush=True)
except Exception as error:
    lines = [line for line in str(error).splitlines() if line.strip()]
    print(
        "step failed",
        f"{time.time() - begun:.2f} s",
        type(error).__name__,
        " | ".join(lines)[:600],
        flush=True,
    )
os._exit(0)
