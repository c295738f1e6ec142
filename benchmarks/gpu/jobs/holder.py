"""A rank that owns a gradient on the device, exports it, and waits: holder.py RANK COUNT DTYPE FOLDER"""

import pickle
import sys
import time
from pathlib import Path

import torch
import tree

rank, count, dtype, folder = (
    int(sys.argv[1]),
    int(sys.argv[2]),
    getattr(torch, sys.argv[3]),
    Path(sys.argv[4]),
)
x = tree.inputs(rank, count, dtype)
torch.cuda.synchronize()
(folder / f"{rank}.tmp").write_bytes(pickle.dumps(x.untyped_storage()._share_cuda_()))
(folder / f"{rank}.tmp").rename(folder / f"{rank}.handle")
print("step ready", flush=True)
while True:
    time.sleep(1)
