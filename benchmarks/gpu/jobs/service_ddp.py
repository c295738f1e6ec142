"""DDP as scripts write it: every rank prints each loss in all digits, then a digest of the weights.

usage: service_ddp.py DEVICE STEPS BALLAST_MB
"""

import hashlib
import os
import sys

import torch
import torch.distributed as dist
from torch import nn

DEVICE, STEPS, BALLAST_MB = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
WIDTH, BATCH = 1024, 64

torch.set_num_threads(1)
dist.init_process_group("nccl")
rank, local = dist.get_rank(), int(os.environ["LOCAL_RANK"])
device = torch.device("cpu")
if DEVICE == "cuda":
    device = torch.device("cuda", local % torch.cuda.device_count())  # ranks may share a GPU
    torch.cuda.set_device(device)
torch.manual_seed(1)
layers = [layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(0.1))]
model = nn.Sequential(*layers).to(device)
ddp = nn.parallel.DistributedDataParallel(model, device_ids=[device.index] if DEVICE == "cuda" else None)
optimizer = torch.optim.Adam(ddp.parameters(), lr=1e-3)
torch.manual_seed(100 + rank)
data = torch.randn(BALLAST_MB * 256 // WIDTH * 1024, WIDTH, device=device)
for step in range(STEPS):
    x = data[torch.randint(len(data), (BATCH,), device=device)]
    loss = (ddp(x) - x).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} {loss.item().hex()}", flush=True)
weights = hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters())).hexdigest()
print(f"weights {weights} data {data.sum().item().hex()}", flush=True)
dist.barrier()
dist.destroy_process_group()
