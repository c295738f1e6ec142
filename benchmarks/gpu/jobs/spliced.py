"""A rank of a job whose ranks share one device: spliced.py MODEL RANK WORLD MODE FOLDER STEPS

The ranks take turns (the lease); rank 0 owns parameters and optimizer state, the others map its parameters by
CUDA IPC; gradients lie in buffers that rank 0 maps, adds along the tree, and uses for the one update. MODE:
  alone    world 1 as a user writes it (the ideal, times the world size)
  serial   all ranks' batches in one process, same arithmetic: the reference for the bits
  drained  handed over when the device has finished; `drained-empty` also gives cached memory back
  early    handed over when all work has been launched
  free     no lease: the device's own time slicing
"""

import hashlib
import os
import pickle
import sys
import time
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
import models
import torch
import tree

from control import Counters

MODEL, RANK, WORLD, MODE, FOLDER, STEPS = (
    sys.argv[1],
    int(sys.argv[2]),
    int(sys.argv[3]),
    sys.argv[4],
    Path(sys.argv[5]),
    int(sys.argv[6]),
)
TURN, UPDATED, FINISHED = 0, 1, 2  # words; FINISHED + rank


def flat_like(parameters):
    return torch.zeros(sum(p.numel() for p in parameters), device="cuda")


def views(flat, parameters):
    at = 0
    for p in parameters:
        yield p, flat[at : at + p.numel()].view(p.shape)
        at += p.numel()


def publish(name, tensor):
    torch.cuda.synchronize()
    (FOLDER / f"{name}.tmp").write_bytes(pickle.dumps(tensor.untyped_storage()._share_cuda_()))
    (FOLDER / f"{name}.tmp").rename(FOLDER / name)


def map_(name):
    while not (FOLDER / name).exists():
        time.sleep(0.01)
    storage = torch.UntypedStorage._new_shared_cuda(*pickle.loads((FOLDER / name).read_bytes()))
    return torch.empty(0, device="cuda").set_(storage)


class Job:
    def __init__(self):
        models.deterministic()
        torch.manual_seed(0)
        self.net, self.shape = models.build(MODEL)
        self.parameters = list(self.net.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)
        ranks = range(WORLD) if MODE == "serial" else [RANK]
        self.data = {r: torch.Generator("cuda").manual_seed(100 + r) for r in ranks}
        self.losses = []

    def backward(self, rank):
        x = models.batch(MODEL, self.shape, self.data[rank])
        loss = models.loss(MODEL, self.net, x)
        loss.backward()
        self.losses.append(loss.detach())

    def report(self, times, rank=RANK, count=1):
        mine = (
            [float(x).hex() for x in self.losses[rank::count]]
            if count > 1
            else [float(x).hex() for x in self.losses]
        )
        digest = hashlib.sha256(
            b"".join(p.detach().cpu().numpy().tobytes() for p in self.parameters)
        ).hexdigest()
        peak = torch.cuda.max_memory_reserved() >> 20
        steady = sorted(times[len(times) // 4 :])
        print("result", f"{steady[len(steady) // 2]:.6f}", peak, digest, mine[-1], flush=True)


def alone(job):
    times = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        for _ in range(5):
            job.backward(RANK)
            job.optimizer.step()
            job.optimizer.zero_grad()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begun) / 5)
    return times


def serial(job):
    flats, times = [flat_like(job.parameters) for _ in range(WORLD)], []
    for _ in range(STEPS):
        begun = time.perf_counter()
        for rank, flat in enumerate(flats):
            flat.zero_()
            for p, view in views(flat, job.parameters):
                p.grad = view
            job.backward(rank)
        for p, view in views(tree.mean(flats), job.parameters):
            p.grad = view
        job.optimizer.step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return times


def share(job):
    """Root publishes its parameters; the others take them in place of their own, which are freed."""
    gradient = flat_like(job.parameters)
    for p, view in views(gradient, job.parameters):
        p.grad = view
    if RANK == 0:
        flat = flat_like(job.parameters)
        for p, view in views(flat, job.parameters):
            view.copy_(p.detach())
            p.data = view
        publish("parameters", flat)
        others = [map_(f"gradient{r}") for r in range(1, WORLD)]
        return [gradient, *others]
    flat = map_("parameters")
    equal = all(torch.equal(p.detach(), view) for p, view in views(flat, job.parameters))
    print("step shared, equal:", equal, flush=True)
    for p, view in views(flat, job.parameters):
        p.data = view
    torch.cuda.empty_cache()
    publish(f"gradient{RANK}", gradient)
    return [gradient]


def spliced(job):
    gradients, counters, times = share(job), Counters(FOLDER / "counters"), []
    leased, drained = MODE != "free", MODE.startswith("drained")
    for step in range(STEPS):
        begun = time.perf_counter()
        counters.wait(UPDATED, step)
        if leased:
            counters.wait(TURN, step * WORLD + RANK)
        gradients[0].zero_()
        job.backward(RANK)
        if drained:
            torch.cuda.synchronize()
            if MODE.endswith("empty"):
                torch.cuda.empty_cache()
        if leased:
            counters.put(TURN, step * WORLD + RANK + 1)
        torch.cuda.synchronize()
        counters.put(FINISHED + RANK, step + 1)
        if RANK == 0:
            for r in range(WORLD):
                counters.wait(FINISHED + r, step + 1)
            tree.mean(gradients)
            job.optimizer.step()
            torch.cuda.synchronize()
            counters.put(UPDATED, step + 1)
        times.append(time.perf_counter() - begun)
    counters.wait(UPDATED, STEPS)
    return times


def main():
    job = Job()
    print("ready", flush=True)
    while not (FOLDER / "go").exists():
        time.sleep(0.02)
    times = {"alone": alone, "serial": serial}.get(MODE, spliced)(job)
    if MODE == "serial":
        for rank in range(WORLD):
            job.report(times, rank, WORLD)
    else:
        job.report(times)
    print("done", flush=True)
    while True:  # what others have mapped must stay
        time.sleep(1)


main()
