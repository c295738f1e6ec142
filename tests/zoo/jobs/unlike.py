"""Ranks that look like replicas of each other and are not, or stop being so. Plain PyTorch."""

import copy

import torch
import torch.distributed as dist
from kit import CLASSES, MIDDLE, STEPS, Data, Net, case, ddp, loss_of, main, mine, odd, rank, sgd, size, train
from torch import nn


@case
def gradients_written(record):
    """Each rank changes its own gradients before the step: replicas part."""
    model = ddp()

    def before(step):
        if step >= MIDDLE:
            model.module.middle.weight.grad *= mine()

    train(record, model, sgd(model), before_step=before)


@case
def gradients_rank_zero(record):
    """Only the rank that would be the root has other gradients."""
    model = ddp()

    def before(step):
        if step >= MIDDLE and rank() == 0:
            model.module.last.weight.grad.zero_()

    train(record, model, sgd(model), before_step=before)


@case
def own_rate(record):
    """Every rank has a learning rate of its own, from the middle on."""

    def act(model, optimizer, step):
        optimizer.param_groups[0]["lr"] = 0.001 * (rank() + 1)

    odd(record, act)


@case
def different_parameters(record):
    """Ranks own models of different sizes besides the common one."""
    torch.manual_seed(rank())
    own = nn.Linear(CLASSES, 16 * (rank() + 1))
    torch.manual_seed(0)
    model, data = ddp(), Data()
    optimizer = torch.optim.AdamW([*model.parameters(), *own.parameters()], lr=0.01)
    for _ in range(STEPS):
        loss = own(model(data.batch()[0])).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record.loss(loss)
    record.state(model, own, optimizer)


@case
def same_sizes_other_values(record):
    """Parameters that look like replicas and are not: another seed in every rank."""
    torch.manual_seed(rank())
    model = Net()
    train(record, model, torch.optim.AdamW(model.parameters(), lr=0.01))


@case
def equal_by_chance(record):
    """Alone in every rank, but equal until the data differ."""
    model, data = Net(), Data()
    optimizer = sgd(model)
    for step in range(2 * STEPS):
        batch = data.same(step=step) if step < STEPS else data.batch()
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


@case
def skipped_step(record):
    """One rank leaves out the update once; later rank 0 does."""
    model, data = ddp(), Data()
    optimizer = sgd(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, data.batch())
        loss.backward()
        if (step, rank()) not in ((MIDDLE, 1), (MIDDLE + 2, 0)):
            optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


@case
def step_twice(record):
    """One rank updates twice with the same gradients."""
    model, data = ddp(), Data()
    optimizer = sgd(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, data.batch())
        loss.backward()
        for _ in range(2 if step == MIDDLE and rank() == size() - 1 else 1):
            optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


@case
def read_between(record):
    """Weights are read right after the step, by one rank more often than by others."""
    model = ddp()

    def after(step):
        for _ in range(rank() + 1):
            record.state(model)

    train(record, model, sgd(model), after=after)


@case
def reloaded_by_one(record):
    """Only one rank goes back."""
    model = ddp()
    kept = copy.deepcopy(model.state_dict())

    def after(step):
        if step == MIDDLE and rank() == 1:
            model.load_state_dict(kept)

    train(record, model, sgd(model), after=after)


class Talking(torch.optim.Optimizer):
    """Communicates inside its step, and keeps a count in plain Python."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.05})
        self.total = 0.0

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                norm = p.grad.norm() * (1 + rank())
                dist.all_reduce(norm)
                self.total += float(norm)
                p.add_(p.grad / (1 + norm), alpha=-group["lr"])


@case
def talking_optimizer(record):
    model = ddp()
    optimizer = Talking(model.parameters())
    train(record, model, optimizer)
    record.say("total", repr(optimizer.total))


@case
def failing_step(record):
    """One rank's update raises in the middle of its work and is left at that."""

    class Failing(torch.optim.SGD):
        calls = 0

        def step(self, closure=None):
            Failing.calls += 1
            if Failing.calls == MIDDLE and rank() == 1:
                raise ArithmeticError("not this time")
            return super().step(closure)

    model, data = ddp(), Data()
    optimizer = Failing(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, data.batch())
        loss.backward()
        try:
            optimizer.step()
        except ArithmeticError as error:
            record.say("caught", error)
        record.loss(loss)
    record.state(model, optimizer)


if __name__ == "__main__":
    main()
