"""DataLoader workers (new ones each epoch, or persistent ones) that use their own random numbers."""

import sys
import time
import warnings

import torch
from torch.utils.data import DataLoader, Dataset


class Noise(Dataset):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.02)
        return torch.randn(1000) + index


warnings.simplefilter("ignore")  # fewer cores than workers
torch.manual_seed(7)
torch.set_num_threads(1)
loader = DataLoader(Noise(), batch_size=2, num_workers=2, shuffle=True, persistent_workers="keep" in sys.argv)
step = 0
for _epoch in range(4):
    for batch in loader:
        print("step", step, batch.double().sum().item(), flush=True)
        step += 1
