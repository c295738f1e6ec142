"""FSDP, DTensor, pipelines and functional collectives, also compiled; prints losses. Plain PyTorch."""

import json
import sys
import warnings

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as funcol
from torch.distributed.device_mesh import init_device_mesh

warnings.filterwarnings("ignore")
dist.init_process_group("gloo")
RANK, SIZE = dist.get_rank(), dist.get_world_size()
result = {}


def losses(model, parameters, steps=4):
    opt = torch.optim.SGD(parameters, lr=0.05)
    data = torch.Generator().manual_seed(100 + RANK)
    out = []
    for _ in range(steps):
        loss = model(torch.randn(8, 16, generator=data)).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        out.append(float(loss).hex())
    return out


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))


from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard  # noqa: E402

model = FullyShardedDataParallel(net(), device_id=torch.device("cpu"), use_orig_params=True)
result["fsdp"] = losses(model, model.parameters())

mesh = init_device_mesh("cpu", (SIZE,))
model = fully_shard(net(), mesh=mesh)
result["fsdp2"] = losses(model, model.parameters())

from torch.distributed.tensor import Replicate, Shard, distribute_tensor  # noqa: E402

whole = torch.arange(12.0).reshape(6, 2)
sharded = distribute_tensor(whole, mesh, [Shard(0)])
assert torch.equal(sharded.redistribute(mesh, [Replicate()]).to_local(), whole)
assert torch.equal(sharded.redistribute(mesh, [Shard(1)]).full_tensor(), whole)
result["dtensor"] = float((sharded @ sharded.t()).full_tensor().sum()).hex()

from torch.distributed.pipelining import PipelineStage, ScheduleGPipe  # noqa: E402

torch.manual_seed(0)
stages = [torch.nn.Linear(4, 4) for _ in range(SIZE)]
stage = PipelineStage(stages[RANK], RANK, SIZE, torch.device("cpu"))
schedule = ScheduleGPipe(stage, n_microbatches=2, loss_fn=lambda y, t: (y - t).pow(2).mean())
x, target = torch.ones(4, 4), torch.zeros(4, 4)
kwargs = {"target": target} if RANK == SIZE - 1 else {}
schedule.step(*([x] if RANK == 0 else []), **kwargs)
result["pipeline"] = float(stages[RANK].weight.grad.sum()).hex()

world = dist.group.WORLD


def steps(t):
    a = funcol.all_reduce(t, "sum", world)
    b = funcol.all_gather_tensor(a + 1, 0, world)
    c = funcol.reduce_scatter_tensor(b, "sum", 0, world)
    d = funcol.all_to_all_single(b.contiguous(), None, None, world)
    e = funcol.broadcast(c, 0, world)
    return (a.sum() + c.sum() + d.sum() + e.sum()).reshape(1)


t = torch.arange(float(2 * SIZE)) + RANK
eager = steps(t)
result["functional"] = float(eager).hex()
if "compile" in sys.argv:
    compiled = torch.compile(steps, backend="aot_eager", fullgraph=True)(t)
    assert torch.equal(eager, compiled), (eager, compiled)

    @torch.compile(backend="aot_eager")
    def in_place(t):
        t = t * 2
        dist.all_reduce(t)
        return t + 1

    result["compiled all_reduce"] = in_place(torch.ones(3) * RANK).tolist()
dist.barrier()
dist.destroy_process_group()
print(json.dumps(result))
