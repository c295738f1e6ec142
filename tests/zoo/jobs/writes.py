"""Weights and optimizer state that are written by hand, in every way that a script has.

A runtime that keeps equal parameters only once must see it. The odd thing happens from the middle of the
training on. Plain PyTorch.
"""

import ctypes

import numpy as np
import torch
from kit import CLASSES, HIDDEN, MIDDLE, case, ddp, main, mine, odd, rank, sgd, size, train


@case
def written_in_no_grad(record):
    @torch.no_grad()
    def act(model, optimizer, step):
        model.module.middle.weight.mul_(mine())
        model.module.last.bias.copy_(torch.full((CLASSES,), 0.1 * rank()))

    odd(record, act)


@case
def written_alike(record):
    """The same values in every rank: the replicas stay equal."""

    @torch.no_grad()
    def act(model, optimizer, step):
        for p in model.parameters():
            p.clamp_(-0.2, 0.2)

    odd(record, act)


@case
def written_through_data(record):
    """No version counter sees it."""

    def act(model, optimizer, step):
        model.module.first.weight.data.mul_(mine())
        model.module.middle.weight.data[rank()] = 0.5

    odd(record, act)


@case
def written_once_through_data(record):
    """A single write of one element, by one rank."""

    def act(model, optimizer, step):
        if step == MIDDLE and rank() == size() - 1:
            model.module.middle.weight.data[3, 4] += 1.0

    odd(record, act)


@case
def data_replaced(record):
    def act(model, optimizer, step):
        model.module.middle.weight.data = model.module.middle.weight.data.clone() * mine()

    odd(record, act)


@case
def data_swapped(record):
    """Two parameters exchange their memory."""

    def act(model, optimizer, step):
        for a, b in ((model.module.first.bias, model.module.middle.bias), other(model)):
            a.data, b.data = b.data, a.data

    def other(model):
        return model.module.middle.weight, spare

    spare = torch.full((HIDDEN, HIDDEN), 0.01)

    odd(record, act)


@case
def written_by_numpy(record):
    def act(model, optimizer, step):
        view = model.module.middle.weight.detach().numpy()
        view *= np.float32(mine())

    odd(record, act)


@case
def numpy_view_kept(record):
    """A view made before the first step is written, and read, later."""
    model = ddp()
    view = model.module.middle.weight.detach().numpy()

    def after(step):
        record.say("seen", repr(float(view.sum(dtype=np.float64))))
        if step == MIDDLE:
            view[rank()] += np.float32(0.25)

    train(record, model, sgd(model), after=after)


@case
def written_by_c(record):
    """C code copies bytes to the address that ``data_ptr`` gave before the first step."""
    model = ddp()
    weight = model.module.middle.weight
    address, nbytes = weight.data_ptr(), weight.nbytes

    def after(step):
        if step == MIDDLE:
            fresh = torch.full((HIDDEN, HIDDEN), 0.01 * (rank() + 1))
            ctypes.memmove(address, fresh.data_ptr(), nbytes)
        record.state(weight)

    train(record, model, sgd(model), after=after)


@case
def written_by_autograd(record):
    """In the backward pass, by a hook."""
    model = ddp()
    train_step = {"now": 0}

    def hook(gradient):
        train_step["now"] += 1
        if train_step["now"] > MIDDLE:
            model.module.first.bias.data += 0.001 * rank()

    model.module.last.weight.register_hook(hook)
    train(record, model, sgd(model))


@case
def state_written(record):
    """The optimizer's state, not the parameters."""

    def act(model, optimizer, step):
        for n, state in enumerate(optimizer.state.values()):
            state["exp_avg"].mul_(0.5 if n % 2 else mine())
        if step == MIDDLE + 1:
            optimizer.state[model.module.middle.weight]["exp_avg_sq"] = torch.ones(HIDDEN, HIDDEN)

    odd(record, act)


@case
def storage_emptied(record):
    """A parameter's storage is given back and filled again between steps, as offloading libraries do."""

    def act(model, optimizer, step):
        weight = model.module.middle.weight
        kept, storage = weight.data.clone(), weight.untyped_storage()
        storage.resize_(0)
        storage.resize_(kept.nbytes)
        weight.data.copy_(kept * mine())

    odd(record, act)


if __name__ == "__main__":
    main()
