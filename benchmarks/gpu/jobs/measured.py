"""Training whose steps are timed when a file says so: measured.py MODEL STEPS [SPECIAL]   (under torchrun)

In each round it waits for the file go-N in its folder, makes a few steps, then prints the mean of STEPS more.
SPECIAL: compiled, graphs. MODEL: one of models.py, or one of SLICED below.
"""

import faulthandler
import os
import sys
import time
from pathlib import Path

import models
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

MODEL, STEPS, SPECIAL = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
WARM = 4


def mlp():
    net = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(4096, 4096), nn.GELU())])
    x = torch.randn(16384, 4096, device="cuda")
    return net, lambda run: (run(x) - x).pow(2).mean()


def cnn():
    layers = []
    widths = [(3, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    for a, b, stride in widths:
        layers += [nn.Conv2d(a, b, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    x, y = torch.randn(256, 3, 128, 128, device="cuda"), torch.randint(0, 1000, (256,), device="cuda")
    return net.to(memory_format=torch.channels_last), lambda run: F.cross_entropy(
        run(x.to(memory_format=torch.channels_last)).float(), y
    )


def gpt():
    net = models.Gpt(12, 768, 12, vocabulary=32768, length=1024)
    x = torch.randint(0, 32768, (8, 1025), device="cuda")
    return net, lambda run: F.cross_entropy(run(x[:, :-1]).float().flatten(0, 1), x[:, 1:].flatten())


def embedding():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(1_000_000, 64, mode="sum")
            layers = [nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1)]
            self.top = nn.Sequential(*layers)

        def forward(self, x):
            return self.top(self.table(x))

    x = torch.randint(0, 1_000_000, (65536, 26), device="cuda")
    y = torch.rand(65536, 1, device="cuda")
    return Net(), lambda run: F.binary_cross_entropy_with_logits(run(x).float(), y)


def tiny():
    net = nn.Sequential(*[m for _ in range(60) for m in (nn.Linear(64, 64), nn.Tanh())])
    x = torch.randn(64, 64, device="cuda")
    return net, lambda run: (run(x) - x).pow(2).mean()


SLICED = {"mlp": mlp, "cnn": cnn, "gpt": gpt, "embedding": embedding, "tiny": tiny}


def make():
    """A module, and what computes its loss."""
    if MODEL in SLICED:
        with torch.device("cuda"):
            return SLICED[MODEL]()
    net, shape = models.build(MODEL.removesuffix("-steady"))
    generator = torch.Generator("cuda").manual_seed(7)
    x = models.batch(MODEL, shape, generator)
    return net, lambda run: models.loss(MODEL, run, x)


def stepper(net, loss_of):
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True, capturable=SPECIAL == "graphs")
    run = torch.compile(net) if SPECIAL == "compiled" else net

    def step():
        optimizer.zero_grad(set_to_none=SPECIAL != "graphs")
        with torch.autocast("cuda", torch.bfloat16, enabled=MODEL in ("mlp", "cnn", "gpt", "embedding")):
            loss = loss_of(run)
        loss.backward()
        optimizer.step()
        return loss

    if SPECIAL != "graphs":
        return step
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(11):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    return lambda: (graph.replay(), out)[1]


def main():
    faulthandler.enable()
    faulthandler.dump_traceback_later(25)  # says where it hangs
    torch.set_num_threads(1)
    models.deterministic()
    torch.backends.cudnn.benchmark = False
    dist.init_process_group("nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.manual_seed(1)
    net, loss_of = make()
    step = stepper(DistributedDataParallel(net, device_ids=[torch.cuda.current_device()]), loss_of)
    for _ in range(3):
        last = step()
    torch.cuda.synchronize()
    faulthandler.cancel_dump_traceback_later()
    print("ready", flush=True)
    number = 0
    while True:
        while not Path(f"go-{number}").exists():
            if Path("end").exists():
                print(
                    "ended", float(last.detach()).hex(), torch.cuda.max_memory_allocated() >> 20, flush=True
                )
                dist.destroy_process_group()
                return
            time.sleep(0.02)
        for _ in range(WARM):
            last = step()
        dist.barrier()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(STEPS):
            last = step()
        torch.cuda.synchronize()
        dist.barrier()
        print(f"round {number} {(time.perf_counter() - begun) / STEPS:.7f}", flush=True)
        number += 1


main()
