"""Data-parallel training in several of PyTorch's ways; prints every loss and a hash of the weights. Plain
PyTorch.
"""

import hashlib
import json
import warnings

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

warnings.filterwarnings("ignore")
dist.init_process_group("gloo")
RANK, SIZE = dist.get_rank(), dist.get_world_size()
torch.use_deterministic_algorithms(True)


class Net(torch.nn.Module):
    def __init__(self, branches=False):
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 64), torch.nn.Linear(64, 4)
        self.unused = torch.nn.Linear(4, 4) if branches else None

    def forward(self, x, use=False):
        y = self.second(torch.relu(self.first(x)))
        return self.unused(y) if use else y


def train(name, wrap, steps=6, optimizer=None, batches=None, forward=None):
    """Train and return the losses as exact text, and the weights' hash."""
    torch.manual_seed(0)
    model = wrap()
    make = optimizer or (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9))
    opt = make(model.parameters())
    data = torch.Generator().manual_seed(100 + RANK)
    losses = []
    for step in range(batches or steps):
        x = torch.randn(8, 16, generator=data)
        loss = (forward or (lambda m, x, _: m(x)))(model, x, step).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(float(loss).hex())
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    return {name: [*losses, hashlib.sha256(weights).hexdigest()]}


def ddp(**kwargs):
    return lambda: DistributedDataParallel(Net(), **kwargs)


def hooked(hook, state=None):
    def wrap():
        model = DistributedDataParallel(Net())
        model.register_comm_hook(state() if state else None, hook)
        return model

    return wrap


def power_state():
    return powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2)


def zero(parameters):
    return ZeroRedundancyOptimizer(parameters, torch.optim.Adam, lr=0.01)


result = {}
result |= train("ddp", ddp())
result |= train("small buckets, views", ddp(bucket_cap_mb=0.001, gradient_as_bucket_view=True))
result |= train("static graph", ddp(static_graph=True))
result |= train(
    "find unused",
    lambda: DistributedDataParallel(Net(branches=True), find_unused_parameters=True),
    forward=lambda m, x, step: m(x, use=step % 2 == 0),
)
result |= train("fp16 hook", hooked(default_hooks.fp16_compress_hook))
result |= train("allreduce hook", hooked(default_hooks.allreduce_hook, lambda: dist.group.WORLD))
result |= train("power hook", hooked(powerSGD_hook.powerSGD_hook, power_state))
result |= train("zero", ddp(), optimizer=zero)

torch.manual_seed(0)
model = DistributedDataParallel(Net())
opt = torch.optim.SGD(model.parameters(), lr=0.1)
with model.join():
    for step in range(3 + RANK):
        opt.zero_grad()
        model(torch.full((2, 16), 1.0 + step)).sum().backward()
        opt.step()
result["join"] = float(next(model.parameters()).sum()).hex()
with model.no_sync():
    model(torch.ones(2, 16)).sum().backward()
model(torch.ones(2, 16)).sum().backward()
result["no_sync"] = float(next(model.parameters()).grad.sum()).hex()
norm = torch.nn.parallel.DistributedDataParallel(
    torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.BatchNorm1d(8))
)
norm(torch.randn(4, 16)).sum().backward()
dist.destroy_process_group()
print(json.dumps(result))
