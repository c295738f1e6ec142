"""Parameters or optimizer state in shards: FSDP1, FSDP2, HSDP, ZeRO. Plain PyTorch."""

import torch
from kit import CLASSES, STEPS, Data, Net, case, ddp, loss_of, main, rank, size, train
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FullyShardedDataParallel,
    MixedPrecision,
    MixedPrecisionPolicy,
    ShardingStrategy,
    fully_shard,
)
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.optim import ZeroRedundancyOptimizer


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def fsdp1(record, **options):
    options = {"use_orig_params": True, "auto_wrap_policy": ModuleWrapPolicy({nn.Linear})} | options
    model = FullyShardedDataParallel(Net(), device_id=torch.device("cpu"), **options)
    optimizer = adam(model)

    def clip(step):
        record.say("norm", repr(float(model.clip_grad_norm_(1.0))))

    train(record, model, optimizer, before_step=clip)


def grid():
    """Two rows where the world is even, else one."""
    rows = 2 if size() % 2 == 0 and size() > 2 else 1
    return init_device_mesh("cpu", (rows, size() // rows), mesh_dim_names=("replicate", "shard"))


@case
def fsdp1_full(record):
    fsdp1(record)


@case
def fsdp1_flat(record):
    fsdp1(record, use_orig_params=False)


@case
def fsdp1_grad_op(record):
    fsdp1(record, sharding_strategy=ShardingStrategy.SHARD_GRAD_OP)


@case
def fsdp1_no_shard(record):
    fsdp1(record, sharding_strategy=ShardingStrategy.NO_SHARD)


@case
def fsdp1_hybrid(record):
    fsdp1(record, sharding_strategy=ShardingStrategy.HYBRID_SHARD, device_mesh=grid())


@case
def fsdp1_bf16(record):
    fsdp1(record, mixed_precision=MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.float32))


def fsdp2(record, mesh, **options):
    model = Net()
    for layer in (model.first, model.middle, model.last):
        fully_shard(layer, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    optimizer = adam(model)

    def clip(step):
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        record.say("norm", repr(float(norm.full_tensor())))

    train(record, model, optimizer, before_step=clip)


@case
def fsdp2_full(record):
    fsdp2(record, init_device_mesh("cpu", (size(),)))


@case
def fsdp2_no_reshard(record):
    fsdp2(record, init_device_mesh("cpu", (size(),)), reshard_after_forward=False)


@case
def fsdp2_bf16(record):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    fsdp2(record, init_device_mesh("cpu", (size(),)), mp_policy=policy)


@case
def hsdp(record):
    fsdp2(record, grid())


@case
def fsdp2_accumulation(record):
    model = fully_shard(Net(), mesh=init_device_mesh("cpu", (size(),)))
    optimizer, data = adam(model), Data()
    for _ in range(STEPS // 2):
        for part in range(3):
            model.set_requires_gradient_sync(part == 2)
            loss = loss_of(model, data.batch()) / 3
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        record.loss(loss)
    record.state(model, optimizer)


def zero(record, inner, **options):
    model = ddp()
    optimizer = ZeroRedundancyOptimizer(model.parameters(), inner, **options)
    train(record, model, optimizer)
    optimizer.consolidate_state_dict(to=0)
    if rank() == 0:
        record.state(optimizer.state_dict()["state"])


@case
def zero_adam(record):
    zero(record, torch.optim.Adam, lr=0.01)


@case
def zero_buckets(record):
    zero(record, torch.optim.SGD, lr=0.05, momentum=0.9, parameters_as_bucket_view=True)


@case
def hand_sharded(record):
    """ZeRO-1 by hand: every rank updates a slice of one flat vector, and they are gathered."""
    model = Net()
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()
    share = -(-flat.numel() // size())
    flat = torch.nn.functional.pad(flat, (0, share * size() - flat.numel()))
    mine = nn.Parameter(flat.view(size(), share)[rank()].clone())
    optimizer, data = torch.optim.Adam([mine], lr=0.01), Data()
    for _ in range(STEPS):
        nn.utils.vector_to_parameters(flat[: flat.numel()], model.parameters())
        model.zero_grad()
        loss = loss_of(model, data.batch())
        loss.backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        gradient = torch.nn.functional.pad(gradient, (0, share * size() - gradient.numel()))
        mine.grad = torch.empty(share)
        torch.distributed.reduce_scatter_tensor(mine.grad, gradient)
        optimizer.step()
        torch.distributed.all_gather_into_tensor(flat, mine.detach())
        record.loss(loss)
    record.state(model, optimizer, CLASSES)


if __name__ == "__main__":
    main()
