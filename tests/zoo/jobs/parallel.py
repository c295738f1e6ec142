"""Ranks that hold different parts of one model: tensor, sequence, pipeline and expert parallel, and meshes of
two dimensions. Plain PyTorch.
"""

from itertools import pairwise

import torch
import torch.distributed as dist
from kit import CLASSES, FEATURES, HIDDEN, STEPS, Data, Net, case, ddp, loss_of, main, rank, sgd, size, train
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

LINE = {"first": ColwiseParallel(), "last": RowwiseParallel()}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


class Shared:
    """The batches of a row of the mesh: ranks that hold parts of one replica see the same data."""

    def __init__(self, row):
        self.row, self.step = row, 0

    def batch(self):
        self.step += 1
        generator = torch.Generator().manual_seed(self.row * 1000 + self.step)
        x = torch.randn(8, FEATURES, generator=generator)
        return x, torch.randint(0, CLASSES, (8,), generator=generator)


def grid():
    """Data-parallel rows and model-parallel columns."""
    rows = 2 if size() % 2 == 0 and size() > 2 else 1
    return init_device_mesh("cpu", (rows, size() // rows), mesh_dim_names=("dp", "tp"))


@case
def tensor_parallel(record):
    model = parallelize_module(Two(), init_device_mesh("cpu", (size(),)), LINE)
    train(record, model, torch.optim.AdamW(model.parameters(), lr=0.01, foreach=False), data=Shared(0))


@case
def sequence_parallel(record):
    class Block(Two):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(FEATURES)
            self.out = nn.Linear(CLASSES, CLASSES)

        def forward(self, x):
            return self.out(super().forward(self.norm(x)))

    plan = {
        "": PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Shard(0)),
        "norm": SequenceParallel(sequence_dim=0),
        "first": ColwiseParallel(input_layouts=Shard(0)),
        "last": RowwiseParallel(output_layouts=Replicate()),
    }
    model = parallelize_module(Block(), init_device_mesh("cpu", (size(),)), plan)
    train(record, model, torch.optim.SGD(model.parameters(), lr=0.05, foreach=False), data=Shared(0))


@case
def tensor_and_data_parallel(record):
    """FSDP2 across rows, tensor parallel within them."""
    mesh = grid()
    model = parallelize_module(Two(), mesh["tp"], LINE)
    fully_shard(model, mesh=mesh["dp"])
    row = mesh["dp"].get_local_rank()
    train(record, model, torch.optim.Adam(model.parameters(), lr=0.01, foreach=False), data=Shared(row))


@case
def ddp_in_columns(record):
    """A group for each half of the world: two jobs in one, whose weights differ."""
    mesh = grid()
    torch.manual_seed(mesh["dp"].get_local_rank())
    model = ddp(process_group=mesh["tp"].get_group())
    train(record, model, sgd(model))


@case
def dtensors(record):
    """A matrix in shards, moved between layouts, with an optimizer of its own."""
    mesh = init_device_mesh("cpu", (size(),))
    whole = torch.arange(float(FEATURES * HIDDEN)).reshape(FEATURES, HIDDEN).sin()
    weight = nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))
    optimizer = torch.optim.SGD([weight], lr=0.01, momentum=0.9, foreach=False)
    for step in range(STEPS):
        x = distribute_tensor(torch.full((4, FEATURES), 0.1 * step + 0.1), mesh, [Replicate()])
        loss = (x @ weight).redistribute(mesh, [Replicate()]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record.loss(loss.full_tensor())
    record.state(weight, optimizer, weight.redistribute(mesh, [Shard(1)]))


def layers(count):
    torch.manual_seed(3)
    sizes = [FEATURES, *[HIDDEN] * (count - 1), CLASSES]
    return [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(sizes)]


def mean_square(y, target):
    return (y - target).pow(2).mean()


def pipeline(record, schedule_of, per_rank=1):
    """Each rank owns some layers, and an optimizer for them."""
    parts = layers(size() * per_rank)
    mine = [(n, parts[n]) for n in range(rank(), size() * per_rank, size())]
    stages = [PipelineStage(part, n, len(parts), torch.device("cpu")) for n, part in mine]
    schedule = schedule_of(stages, mean_square)
    optimizer = torch.optim.Adam([p for _, part in mine for p in part.parameters()], lr=0.01)
    data = Shared(1)
    for _ in range(STEPS // 2):
        x, y = data.batch()
        losses = []
        wanted = {"target": nn.functional.one_hot(y, CLASSES).float()} if rank() == size() - 1 else {}
        schedule.step(*([x] if rank() == 0 else []), **wanted, losses=losses)
        optimizer.step()
        optimizer.zero_grad()
        record.say("losses", [repr(float(loss)) for loss in losses])
    record.state(*[part for _, part in mine], optimizer)


@case
def pipeline_gpipe(record):
    pipeline(record, lambda stages, loss: ScheduleGPipe(stages[0], 4, loss_fn=loss))


@case
def pipeline_1f1b(record):
    pipeline(record, lambda stages, loss: Schedule1F1B(stages[0], 4, loss_fn=loss))


@case
def pipeline_interleaved(record):
    pipeline(record, lambda stages, loss: ScheduleInterleaved1F1B(stages, 4, loss_fn=loss), per_rank=2)


@case
def pipeline_and_data_parallel(record):
    """Rows are pipelines of two stages; gradients are summed over the same stage of each row."""
    mesh = init_device_mesh("cpu", (max(1, size() // 2), 2), mesh_dim_names=("dp", "pp"))
    row, column = mesh["dp"].get_local_rank(), mesh["pp"].get_local_rank()
    part, replicas = layers(2)[column], mesh["dp"].get_group()
    stage = PipelineStage(part, column, 2, torch.device("cpu"), group=mesh["pp"].get_group())
    schedule = ScheduleGPipe(stage, 2, loss_fn=mean_square)
    optimizer = sgd(part)
    data = Shared(row)
    for _ in range(STEPS // 2):
        x, y = data.batch()
        wanted = {"target": nn.functional.one_hot(y, CLASSES).float()} if column == 1 else {}
        losses = []
        schedule.step(*([x] if column == 0 else []), **wanted, losses=losses)
        for p in part.parameters():
            dist.all_reduce(p.grad, group=replicas)
        optimizer.step()
        optimizer.zero_grad()
        record.say("losses", [repr(float(loss)) for loss in losses])
    record.state(part, optimizer)


class Experts(torch.autograd.Function):
    """Rows go to the rank whose expert is asked for, and their gradients come back."""

    @staticmethod
    def forward(ctx, rows):
        return _swapped(rows)

    @staticmethod
    def backward(ctx, gradient):
        return _swapped(gradient)


def _swapped(rows):
    out = torch.empty_like(rows)
    dist.all_to_all_single(out, rows.contiguous())
    return out


@case
def expert_parallel(record):
    """A router and a head that are replicas, an expert that is not."""
    trunk = ddp(nn.Linear(FEATURES, HIDDEN))
    head = ddp(nn.Linear(HIDDEN, CLASSES))
    torch.manual_seed(60 + rank())
    expert = nn.Linear(HIDDEN, HIDDEN)
    optimizer = torch.optim.AdamW([*trunk.parameters(), *head.parameters(), *expert.parameters()], lr=0.01)
    data = Data()
    for _ in range(STEPS):
        x, y = data.batch(rows=4 * size())
        routed = Experts.apply(torch.tanh(expert(Experts.apply(trunk(x)))))
        loss = nn.functional.cross_entropy(head(routed), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record.loss(loss)
    record.state(trunk, head, expert, optimizer)


@case
def split_model(record):
    """Two halves with plain send and receive; one optimizer in each rank, over different parameters."""
    last = size() - 1
    mine = Net() if rank() == last else nn.Linear(FEATURES, FEATURES)
    optimizer, data = sgd(mine), Shared(2)
    for _ in range(STEPS):
        x, y = data.batch()
        x = x.requires_grad_()
        if rank() > 0:
            held = x.detach().clone()
            dist.recv(held, rank() - 1)
            x = held.requires_grad_()
        out = mine(x)
        optimizer.zero_grad()
        if rank() < last:
            dist.send(out.detach(), rank() + 1)
            gradient = torch.empty_like(out)
            dist.recv(gradient, rank() + 1)
            out.backward(gradient)
        else:
            loss = nn.functional.cross_entropy(out, y)
            loss.backward()
            record.loss(loss)
        if rank() > 0:
            dist.send(x.grad, rank() - 1)
        optimizer.step()
    record.state(mine, optimizer, loss_of(mine, data.batch()) if rank() == last else 0)


if __name__ == "__main__":
    main()
