"""Training in one process with DataLoader workers: 4 M parameters, Adam, steps of some 10 ms. How much memory
it holds does not depend on how long it has run: two processes of it are alike."""

import ctypes
import os

import torch
from torch.utils.data import DataLoader, TensorDataset

_M_MMAP_THRESHOLD = -3
ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)  # left to itself, malloc keeps more and more of it
torch.set_num_threads(1)
torch.manual_seed(0)
WORKERS = int(os.environ.get("WORKERS", "2"))

if __name__ == "__main__":
    model = torch.nn.Sequential(torch.nn.Linear(1024, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 1024))
    optimizer = torch.optim.Adam(model.parameters())
    data = TensorDataset(torch.randn(4096, 1024), torch.randn(4096, 1024))
    loader = DataLoader(
        data, batch_size=32, num_workers=WORKERS, persistent_workers=WORKERS > 0, shuffle=True
    )
    for epoch in range(100_000):
        for x, y in loader:
            loss = (model(x) - y).pow(2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if epoch == 0:
            print("ready", flush=True)
