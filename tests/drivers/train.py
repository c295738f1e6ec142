import hashlib
import os

import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(0)


class Numbers(Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, i):
        x = torch.randn(256, generator=torch.Generator().manual_seed(i))
        return x, x.roll(1) * 0.5


if __name__ == "__main__":
    model = torch.nn.Sequential(
        torch.nn.Linear(256, 512), torch.nn.Dropout(0.1), torch.nn.ReLU(), torch.nn.Linear(512, 256)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(Numbers(), batch_size=16, num_workers=2, persistent_workers=True, shuffle=True)
    for epoch in range(int(os.environ["EPOCHS"])):
        for step, (x, y) in enumerate(loader):
            loss = (model(x) - y).pow(2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            print(epoch, step, f"{loss.item():.17g}", flush=True)
    print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest())
