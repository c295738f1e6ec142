"""DistributedDataParallel with the ways of training that scripts use around it. Plain PyTorch."""

import copy

import torch
import torch.distributed as dist
from kit import CLASSES, STEPS, Data, Net, case, ddp, loss_of, main, rank, sgd, size, train
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


@case
def accumulation(record):
    """Three passes without communication, then one with it."""
    model, data = ddp(), Data()
    optimizer = sgd(model)
    for _ in range(STEPS // 2):
        with model.no_sync():
            for _ in range(3):
                (loss_of(model, data.batch()) / 4).backward()
        loss = loss_of(model, data.batch()) / 4
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        record.loss(loss)
    record.state(model, optimizer)


@case
def clipping(record):
    model = ddp()
    optimizer = sgd(model, lr=0.3)

    def clip(step):
        if step % 2:
            nn.utils.clip_grad_value_(model.parameters(), 0.01)
        else:
            record.say("norm", repr(float(nn.utils.clip_grad_norm_(model.parameters(), 0.2))))

    train(record, model, optimizer, before_step=clip)


@case
def grad_scaler(record):
    """Infinite gradients at one step: it is skipped by every rank, and the scale changes."""
    model, data = ddp(), Data()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, data.batch())
        scaler.scale(loss * (float("inf") if step == 6 and rank() == 0 else 1.0)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        record.loss(loss)
        record.say("scale", repr(scaler.get_scale()))
    record.state(model, optimizer)


@case
def bf16_autocast(record):
    model, data = ddp(), Data()
    optimizer = sgd(model)
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, data.batch())
        loss.backward()
        optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


@case
def bf16_weights(record):
    model, data = ddp(Net().to(torch.bfloat16)), Data()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        x, y = data.batch()
        optimizer.zero_grad()
        loss = loss_of(model, (x.to(torch.bfloat16), y))
        loss.backward()
        optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


@case
def ema(record):
    """An average of the weights by torch, another one by hand."""
    model = ddp()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    by_hand = copy.deepcopy(model.module)

    @torch.no_grad()
    def follow(step):
        average.update_parameters(model)
        for mine, theirs in zip(by_hand.parameters(), model.parameters()):
            mine.mul_(0.5).add_(theirs, alpha=0.5)

    train(record, model, sgd(model), after=follow)
    record.state(average, by_hand)


class Branches(nn.Module):
    """Uses one of two ways through; which one may differ between ranks."""

    def __init__(self):
        super().__init__()
        self.net, self.left, self.right = Net(), nn.Linear(CLASSES, CLASSES), nn.Linear(CLASSES, CLASSES)
        self.turn = 0

    def forward(self, x):
        self.turn += 1
        return (self.left if (self.turn + rank()) % 3 else self.right)(self.net(x))


@case
def unused_parameters(record):
    model = ddp(Branches(), find_unused_parameters=True)
    train(record, model, sgd(model))


@case
def static_graph(record):
    model = ddp(static_graph=True, bucket_cap_mb=0.01)
    train(record, model, sgd(model))


@case
def bucket_views(record):
    """Gradients are views of the buckets, and are zeroed in place."""
    model, data = ddp(gradient_as_bucket_view=True, bucket_cap_mb=0.01), Data()
    optimizer = sgd(model)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=False)
        loss = loss_of(model, data.batch())
        loss.backward()
        optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


def hooked(record, hook, state=None):
    model = ddp()
    model.register_comm_hook(state, hook)
    train(record, model, sgd(model))


@case
def hook_fp16(record):
    hooked(record, default_hooks.fp16_compress_hook)


@case
def hook_wrapped(record):
    """Compression around another hook."""
    hooked(record, default_hooks.fp16_compress_wrapper(default_hooks.allreduce_hook))


@case
def hook_powersgd(record):
    """Low-rank gradients with error feedback, kept by each rank for itself."""
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=3)
    hooked(record, powerSGD_hook.powerSGD_hook, state)


@case
def hook_own(record):
    """A user's: sums in double precision."""

    def hook(state, bucket):
        wide = bucket.buffer().double()
        future = dist.all_reduce(wide, async_op=True).get_future()
        return future.then(lambda done: (done.value()[0] / size()).float())

    hooked(record, hook)


if __name__ == "__main__":
    main()
