"""DistributedDataParallel with every kind of optimizer. Plain PyTorch."""

import torch
from kit import STEPS, Data, Net, case, ddp, loss_of, main, train
from torch import optim


def with_optimizer(record, make):
    model = ddp()
    train(record, model, make(model.parameters()))


@case
def sgd(record):
    with_optimizer(record, lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01))


@case
def sgd_plain(record):
    """No state at all."""
    with_optimizer(record, lambda p: optim.SGD(p, lr=0.05))


@case
def sgd_foreach(record):
    with_optimizer(record, lambda p: optim.SGD(p, lr=0.05, momentum=0.9, foreach=True))


@case
def sgd_fused(record):
    with_optimizer(record, lambda p: optim.SGD(p, lr=0.05, momentum=0.9, fused=True))


@case
def adam(record):
    with_optimizer(record, lambda p: optim.Adam(p, lr=0.01, amsgrad=True))


@case
def adam_foreach(record):
    with_optimizer(record, lambda p: optim.Adam(p, lr=0.01, foreach=True))


@case
def adamw(record):
    with_optimizer(record, lambda p: optim.AdamW(p, lr=0.01))


@case
def adamw_fused(record):
    with_optimizer(record, lambda p: optim.AdamW(p, lr=0.01, fused=True))


@case
def adamw_capturable_tensor_lr(record):
    """The learning rate is a tensor."""
    with_optimizer(record, lambda p: optim.AdamW(p, lr=torch.tensor(0.01), foreach=False))


@case
def adafactor(record):
    with_optimizer(record, lambda p: optim.Adafactor(p, lr=0.01))


@case
def adagrad_fused(record):
    with_optimizer(record, lambda p: optim.Adagrad(p, lr=0.01, fused=True))


@case
def rmsprop(record):
    with_optimizer(record, lambda p: optim.RMSprop(p, lr=0.001, centered=True, momentum=0.5))


@case
def lbfgs(record):
    """The optimizer calls the model itself, as often as it likes."""
    model, data = ddp(), Data()
    optimizer = optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    for _ in range(4):
        batch = data.batch()

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            mean = loss.detach().clone()
            torch.distributed.all_reduce(mean)
            return mean

        record.loss(optimizer.step(closure))
    record.state(model)


class Lion(optim.Optimizer):
    """A user's own: sign of an average, state in tensors and in numbers."""

    def __init__(self, parameters, lr=0.003, beta=0.9):
        super().__init__(parameters, {"lr": lr, "beta": beta})
        self.count = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                average = state.setdefault("average", torch.zeros_like(p))
                state["seen"] = state.get("seen", 0) + 1
                p.add_(average.lerp(p.grad, 1 - group["beta"]).sign_(), alpha=-group["lr"])
                average.lerp_(p.grad, 0.01)


@case
def own_optimizer(record):
    model = ddp()
    optimizer = Lion(model.parameters())
    train(record, model, optimizer)
    record.say("count", optimizer.count)


class Noisy(optim.Optimizer):
    """Draws random numbers while it updates, from the default generator: the same ones in every rank."""

    def __init__(self, parameters, lr=0.05):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"]).add_(torch.randn_like(p), alpha=1e-3)


@case
def noisy_optimizer(record):
    model = ddp()
    train(record, model, Noisy(model.parameters()))
    record.say("next random", repr(float(torch.rand(()))))


@case
def several_optimizers(record):
    """Three optimizers of two kinds over parts of one model, stepped at different rates."""
    model, data = ddp(), Data()
    net = model.module
    parts = [
        optim.AdamW(net.first.parameters(), lr=0.01),
        optim.SGD(net.middle.parameters(), lr=0.05, momentum=0.9),
        optim.SGD([{"params": [net.last.weight], "lr": 0.1}, {"params": [net.last.bias]}], lr=0.01),
    ]
    for step in range(STEPS):
        loss = loss_of(model, data.batch())
        loss.backward()
        for number, part in enumerate(parts):
            if step % (number + 1) == 0:
                part.step()
                part.zero_grad(set_to_none=step % 2 == 0)
        record.loss(loss)
    record.state(model, *parts)


@case
def schedulers(record):
    """A cycle by the step, then one by the (averaged) loss."""
    model, data = ddp(Net()), Data()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    cycle = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=STEPS)
    plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, data.batch())
        loss.backward()
        optimizer.step()
        cycle.step()
        record.loss(loss)
        record.say("lr", repr(cycle.get_last_lr()[0]))
    for _ in range(4):
        mean = loss_of(model, data.batch()).detach()
        torch.distributed.all_reduce(mean)
        plateau.step(mean)
        record.say("lr", repr(optimizer.param_groups[0]["lr"]))
    record.state(model, optimizer)


if __name__ == "__main__":
    main()
