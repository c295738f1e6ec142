"""A training step captured as one CUDA graph (a plain loop on a CPU), fed from pinned memory.

usage: service_graph.py DEVICE STEPS
"""

import hashlib
import os
import sys
import time

os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"

import torch
from torch import nn

DEVICE, STEPS = sys.argv[1], int(sys.argv[2])
CUDA = DEVICE == "cuda"
WIDTH = 512

torch.set_num_threads(1)
torch.manual_seed(3)
model = nn.Sequential(nn.Linear(WIDTH, 2048), nn.GELU(), nn.Linear(2048, WIDTH)).to(DEVICE)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, capturable=CUDA)
x = torch.zeros(64, WIDTH, device=DEVICE)
feed = torch.zeros(64, WIDTH, pin_memory=CUDA)


def train():
    loss = (model(x) - x).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    return loss.detach()


loss, graph = train(), None
if CUDA:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            train()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = train()
for step in range(STEPS):
    feed.normal_()
    x.copy_(feed, non_blocking=True)
    if graph is not None:
        graph.replay()
    else:
        loss = train()
    print(f"step {step} {loss.item().hex()}", flush=True)
    time.sleep(0.02)
weights = hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters())).hexdigest()
print(f"weights {weights}", flush=True)
