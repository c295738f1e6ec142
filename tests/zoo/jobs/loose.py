"""Ranks that are not in step: uneven input, local SGD, gossip, averaging by hand. Plain PyTorch."""

import copy

import torch
import torch.distributed as dist
from kit import STEPS, Data, Net, case, ddp, loss_of, main, rank, sgd, size, train
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import post_localSGD_hook
from torch.distributed.algorithms.join import Join
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer


@case
def join(record):
    """Some ranks have more batches than others."""
    model, data = ddp(), Data()
    optimizer = sgd(model)
    with model.join():
        for _ in range(4 + 2 * rank()):
            optimizer.zero_grad()
            loss = loss_of(model, data.batch())
            loss.backward()
            optimizer.step()
            record.loss(loss)
    record.state(model, optimizer)


@case
def join_with_zero(record):
    model, data = ddp(), Data()
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.01)
    with Join([model, optimizer]):
        for _ in range(6 + rank() % 2):
            optimizer.zero_grad()
            loss = loss_of(model, data.batch())
            loss.backward()
            optimizer.step()
            record.loss(loss)
    record.state(model)


@case
def local_sgd(record):
    """By hand: every rank trains alone, and weights are averaged every fourth step."""
    model = Net()

    def average(step):
        if step % 4 == 3:
            with torch.no_grad():
                for p in model.parameters():
                    dist.all_reduce(p.data)
                    p /= size()

    train(record, model, sgd(model), steps=2 * STEPS, after=average)


@case
def post_local_sgd(record):
    """torch's own: gradients are averaged for some steps, later on weights are."""
    model = ddp()
    halves, _ = dist.new_subgroups(group_size=max(1, size() // 2))
    state = post_localSGD_hook.PostLocalSGDState(None, halves, start_localSGD_iter=4)
    model.register_comm_hook(state, post_localSGD_hook.post_localSGD_hook)
    averager = PeriodicModelAverager(period=3, warmup_steps=4)
    optimizer = PostLocalSGDOptimizer(optim=sgd(model), averager=averager)
    train(record, model, optimizer, steps=2 * STEPS)


@case
def diloco(record):
    """An inner optimizer alone, an outer one with momentum on the average of the changes."""
    model = Net()
    anchor = copy.deepcopy(model)
    inner = torch.optim.AdamW(model.parameters(), lr=0.01)
    outer = torch.optim.SGD(anchor.parameters(), lr=0.7, momentum=0.9, nesterov=True)

    @torch.no_grad()
    def meet(step):
        if step % 5 != 4:
            return
        for kept, mine in zip(anchor.parameters(), model.parameters()):
            change = kept - mine
            dist.all_reduce(change)
            kept.grad = change / size()
        outer.step()
        model.load_state_dict(anchor.state_dict())

    train(record, model, inner, steps=2 * STEPS, after=meet)
    record.state(anchor, outer)


@case
def gossip(record):
    """Each rank averages with one neighbour at a time."""
    model = Net()
    vector = nn.utils.parameters_to_vector
    groups = [[0, 1], [size() - 2, size() - 1], list(range(size()))]
    pairs = [dist.new_group(members) for members in groups]

    def talk(step):
        which = step % 3
        if rank() in groups[which]:
            mine = vector(model.parameters()).detach()
            dist.all_reduce(mine, group=pairs[which])
            nn.utils.vector_to_parameters(mine / len(groups[which]), model.parameters())

    train(record, model, sgd(model), after=talk)


@case
def averaged_by_hand(record):
    """Data parallel without DDP: gradients are summed one by one, asynchronously."""
    model = Net()

    def combine(step):
        works = [dist.all_reduce(p.grad, async_op=True) for p in model.parameters()]
        for work, p in zip(works, model.parameters()):
            work.wait()
            p.grad /= size()

    train(record, model, torch.optim.AdamW(model.parameters(), lr=0.01), before_step=combine)


@case
def parameter_server(record):
    """Rank 0 alone has an optimizer; the others send gradients and receive weights."""
    model, data = Net(), Data()
    optimizer = sgd(model) if rank() == 0 else None
    for _ in range(STEPS):
        loss = loss_of(model, data.batch())
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            dist.reduce(p.grad, 0)
        if optimizer:
            optimizer.step()
        for p in model.parameters():
            dist.broadcast(p.data, 0)
        record.loss(loss)
    record.state(model)


if __name__ == "__main__":
    main()
