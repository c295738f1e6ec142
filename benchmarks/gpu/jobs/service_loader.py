"""One rank with DataLoader workers; needs no Midstep: run plainly it prints the same lines.

usage: service_loader.py DEVICE STEPS BALLAST_MB FILE: until FILE is there it holds something open that no
process may have that is to move (a device file).
"""

import hashlib
import os
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

DEVICE, STEPS, BALLAST_MB, LET_GO = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
WIDTH = 512


class Numbers(Dataset):
    def __len__(self):
        return 1 << 20

    def __getitem__(self, i):
        return torch.full((WIDTH,), 0.01 * (i % 13 + 1))


def held_device():
    names = ["/dev/nvidiactl"] if DEVICE == "cuda" else ["/dev/net/tun", "/dev/fuse", "/dev/kmsg"]
    for name in names:
        try:
            return os.open(name, os.O_RDONLY)
        except OSError:
            continue
    return -1


def main():
    torch.set_num_threads(1)
    torch.manual_seed(7)
    if DEVICE == "cuda":
        assert torch.cuda.device_count() >= 1  # torch opens NVML for this
    layers = nn.Linear(WIDTH, 2048), nn.GELU(), nn.Dropout(0.2), nn.Linear(2048, WIDTH)
    model = nn.Sequential(*layers).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = torch.randn(BALLAST_MB * 256, 1024, device=DEVICE)
    loader = DataLoader(Numbers(), batch_size=32, num_workers=2, pin_memory=DEVICE == "cuda", shuffle=True)
    batches = iter(loader)
    held = held_device()  # after the workers have been forked: they would keep it
    for step in range(STEPS):
        x = next(batches).to(DEVICE, non_blocking=True) + data[step % len(data), :WIDTH]
        loss = (model(x) - x).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} {loss.item().hex()}", flush=True)
        if held >= 0 and os.path.exists(LET_GO):
            os.close(held)
            held = -1
        time.sleep(0.02)  # long enough for all that is to happen to it
    parameters = b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters())
    weights = hashlib.sha256(parameters).hexdigest()
    print(f"weights {weights} data {data.sum().item().hex()}", flush=True)


if __name__ == "__main__":
    main()
