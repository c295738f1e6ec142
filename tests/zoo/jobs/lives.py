"""Models and optimizers that come, go, grow, are reloaded, or share parameters. Plain PyTorch."""

import copy
import os
import tempfile

import torch
import torch.distributed as dist
from kit import CLASSES, HIDDEN, STEPS, Data, Net, case, ddp, loss_of, main, rank, sgd, train
from torch import nn

MIDDLE = STEPS // 2


@case
def reloaded(record):
    """Weights and optimizer go back to what they were, from memory, then from a file."""
    model = ddp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    kept = {}
    path = os.path.join(tempfile.mkdtemp(), "checkpoint.pt")

    def after(step):
        if step == 1:
            kept.update(model=copy.deepcopy(model.state_dict()), opt=copy.deepcopy(optimizer.state_dict()))
            torch.save(kept, path)
        if step == MIDDLE:
            model.load_state_dict(kept["model"])
            optimizer.load_state_dict(kept["opt"])
        if step == MIDDLE + 2:
            saved = torch.load(path)
            model.load_state_dict(saved["model"], assign=True)
            optimizer.load_state_dict(saved["opt"])

    train(record, model, optimizer, after=after)


@case
def new_optimizer_every_epoch(record):
    model = ddp()
    for epoch in range(4):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01 / (epoch + 1))
        train(record, model, optimizer, steps=5, data=Data(shift=epoch))
        del optimizer


@case
def new_model_every_epoch(record):
    for _ in range(3):
        model = ddp()
        train(record, model, sgd(model), steps=5)
        del model


@case
def resized(record):
    """The vocabulary grows: storage, then a new parameter, under the same optimizer."""
    table = nn.Embedding(128, HIDDEN)
    head = nn.Linear(HIDDEN, CLASSES)
    optimizer = torch.optim.SGD([*table.parameters(), *head.parameters()], lr=0.1)
    generator = torch.Generator().manual_seed(rank())
    for step in range(STEPS):
        if step == MIDDLE:
            loss = None  # its graph knows the old size
            wider = table.weight.data.resize_(160, HIDDEN)
            wider[128:] = 0.5
            table.weight.data = wider
            table.num_embeddings = 160
        if step == MIDDLE + 2:
            table.weight = nn.Parameter(torch.cat([table.weight.detach(), torch.ones(32, HIDDEN)]))
            optimizer.param_groups[0]["params"][0] = table.weight
            table.num_embeddings = 192
        words = torch.randint(0, table.num_embeddings, (4, 3), generator=generator)
        loss = head(table(words)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        for p in (table.weight, *head.parameters()):
            dist.all_reduce(p.grad)
        optimizer.step()
        record.loss(loss)
    record.state(table, head, optimizer)


@case
def converted(record):
    """The model becomes double in the middle, and float again."""
    model = ddp()
    train(record, model, sgd(model), steps=5)
    net = ddp(model.module.double())
    data, optimizer = Data(shift=1), sgd(net)
    for _ in range(5):
        x, y = data.batch()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x.double()), y)
        loss.backward()
        optimizer.step()
        record.loss(loss)
    net = ddp(net.module.float())
    train(record, net, sgd(net), steps=5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(128, HIDDEN)
        self.head = nn.Linear(HIDDEN, 128, bias=False)
        self.head.weight = self.table.weight

    def forward(self, words):
        return self.head(self.table(words))


@case
def tied(record):
    """One parameter in two modules; later they part."""
    model = ddp(Tied())
    generator = torch.Generator().manual_seed(rank())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(2 * STEPS):
        if step == STEPS:
            net = model.module
            net.head.weight = nn.Parameter(net.table.weight.detach().clone())
            model = ddp(net)
            optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        words = torch.randint(0, 128, (6,), generator=generator)
        loss = nn.functional.cross_entropy(model(words), words.roll(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


@case
def two_models_one_weight(record):
    """Two DDP models hold the same parameter; each has an optimizer."""
    common = nn.Linear(HIDDEN, HIDDEN)
    a, b = ddp(Net(common)), ddp(Net(common))
    first, second, data = sgd(a), sgd(b, lr=0.02), Data()
    for _ in range(STEPS):
        for model, optimizer in ((a, first), (b, second)):
            optimizer.zero_grad()
            loss = loss_of(model, data.batch())
            loss.backward()
            optimizer.step()
            record.loss(loss)
    record.state(a, b, first, second)


@case
def flat_views(record):
    """All parameters are views of one vector, which is the one that is updated."""
    model = Net()
    flat = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    at = 0
    for p in model.parameters():
        p.data = flat[at : at + p.numel()].view_as(p)
        at += p.numel()
    model, data = ddp(model), Data()
    whole = nn.Parameter(flat)
    optimizer = torch.optim.Adam([whole], lr=0.01)
    for _ in range(STEPS):
        model.zero_grad()
        loss = loss_of(model, data.batch())
        loss.backward()
        whole.grad = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


@case
def frozen_and_thawed(record):
    """Parameters stop learning, others join the optimizer later."""
    model = ddp(find_unused_parameters=True)
    net = model.module
    optimizer = torch.optim.SGD(net.last.parameters(), lr=0.05, momentum=0.9)

    def after(step):
        if step == 3:
            optimizer.add_param_group({"params": list(net.first.parameters()), "lr": 0.02})
        if step == MIDDLE:
            net.last.weight.requires_grad_(False)
        if step == MIDDLE + 2:
            net.last.weight.requires_grad_(True)

    train(record, model, optimizer, after=after)


@case
def shared_memory_already(record):
    """The script itself moves its parameters to shared memory."""
    net = Net()
    net.share_memory()
    model = ddp(net)
    train(record, model, sgd(model))


@case
def saved_and_copied(record):
    """Copies, pickles and state dicts that are taken on the way keep their values."""
    model = ddp()
    kept = []

    def after(step):
        if step in (2, MIDDLE, STEPS - 2):
            kept.append(copy.deepcopy(model.module))
            kept.append([p.detach().clone() for p in model.parameters()])

    train(record, model, sgd(model), after=after)
    record.state(kept)


if __name__ == "__main__":
    main()
