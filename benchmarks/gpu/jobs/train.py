"""An ordinary training script: Adam, dropout, data drawn on the device. It knows nothing of being cut."""

import argparse
import hashlib
import os
import time

started = time.time()
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
import torch  # noqa: E402
import torch.nn as nn  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--gb", type=float, default=0.5)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--save-at", type=int, default=-1)
parser.add_argument("--load", default="")
parser.add_argument("--wait", action="store_true", help="until there is a file 'go'")
args = parser.parse_args()

imported = time.time()
torch.use_deterministic_algorithms(True)
torch.manual_seed(0)
width = 4096 if args.gb >= 2 else 1024
layers = max(2, round(args.gb * 2**30 / (16 * width * width)))  # parameter, gradient and two moments, float32
with torch.device("cuda"):
    model = nn.Sequential(
        *[m for _ in range(layers) for m in (nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.1))]
    )
if args.wait:
    torch.cuda.synchronize()
    print("ready", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
first = 0
if args.load:
    state = torch.load(args.load, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.cuda.set_rng_state(state["rng"].cpu())
    first = state["step"]
    print(f"times import {imported - started:.3f} ready {time.time() - started:.3f}", flush=True)
for step in range(first, args.steps):
    if step == args.save_at:
        torch.cuda.synchronize()
        begun = time.time()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "rng": torch.cuda.get_rng_state(), "step": step}, "saved.pt")
        print(f"saved {time.time() - begun:.4f} bytes {os.path.getsize('saved.pt')}", flush=True)
        raise SystemExit
    x = torch.randn(64, width, device="cuda")
    loss = (model(x) - x).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print("step", step, float(loss).hex(), flush=True)
digest = hashlib.sha256()
for parameter in model.parameters():
    digest.update(parameter.detach().cpu().numpy().tobytes())
print("done", digest.hexdigest(), flush=True)
