"""Makes ``steps`` optimizer steps, prints its own count and its model's bytes, and waits until it may end.

Further arguments: ``alone`` without torch.distributed; ``wrapped`` by an optimizer around the optimizer;
``fork`` a child that makes steps as well.
"""

import json
import os
import sys
import time

import torch
import torch.distributed as dist

steps, options = int(sys.argv[1]), sys.argv[2:]
torch.set_num_threads(1)
torch.manual_seed(0)
if "alone" not in options:
    dist.init_process_group("gloo")
net = torch.nn.Linear(300, 200)
opt = torch.optim.Adam(net.parameters())


class Wrapping(torch.optim.Optimizer):
    """As some libraries do: an optimizer whose step is another one's."""

    def __init__(self, inner):
        self.inner = inner
        super().__init__(inner.param_groups, {})

    def step(self, closure=None):
        return self.inner.step(closure)


stepped = Wrapping(opt) if "wrapped" in options else opt


def train(times):
    for _ in range(times):
        net(torch.ones(4, 300)).sum().backward()
        if "alone" not in options:
            for p in net.parameters():
                dist.all_reduce(p.grad)
        stepped.step()
        opt.zero_grad()


train(steps)
if "fork" in options:
    pid = os.fork()
    if pid == 0:
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        for _ in range(5):
            opt.step()
        os._exit(0)
    os.waitpid(pid, 0)
print(json.dumps({"steps": steps, "bytes": sum(p.numel() * 4 for p in net.parameters())}), flush=True)
while not os.path.exists("end"):
    time.sleep(0.02)
if "alone" not in options:
    dist.destroy_process_group()
