"""DistributedDataParallel over statistics, dropout, images, tables, a GAN. Plain PyTorch."""

import torch
from kit import CLASSES, FEATURES, HIDDEN, STEPS, Data, Net, case, ddp, main, rank, sgd, size, train
from torch import nn
from torch.utils.checkpoint import checkpoint


def normalised():
    layers = [nn.Linear(FEATURES, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)]
    return nn.Sequential(*layers)


@case
def batchnorm(record):
    model = ddp(normalised(), broadcast_buffers=True)
    train(record, model, sgd(model))


@case
def batchnorm_own(record):
    """Running averages differ between ranks."""
    model = ddp(normalised(), broadcast_buffers=False)
    train(record, model, sgd(model))


@case
def sync_batchnorm(record):
    """torch has SyncBatchNorm for accelerators only and says so; the same by hand, through autograd."""
    try:
        train(record, *_with_sgd(ddp(nn.SyncBatchNorm.convert_sync_batchnorm(normalised()))))
        record.say("SyncBatchNorm", "works")
    except (ValueError, RuntimeError) as error:
        record.say("SyncBatchNorm", str(error).split("\n")[0])
        train(record, *_with_sgd(ddp(nn.Sequential(nn.Linear(FEATURES, CLASSES), SharedStatistics()))))


def _with_sgd(model):
    return model, sgd(model)


class SharedStatistics(nn.Module):
    """Batch normalisation over the batches of all ranks."""

    def forward(self, x):
        from torch.distributed.nn.functional import all_reduce

        mean = all_reduce(x.mean(0)) / size()
        spread = all_reduce((x - mean).pow(2).mean(0)) / size()
        return (x - mean) / (spread + 1e-5).sqrt()


@case
def dropout(record):
    """Every rank drops by a generator of its own."""
    torch.manual_seed(0)
    model = ddp(Net(nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.Dropout(0.3))))
    torch.manual_seed(40 + rank())
    train(record, model, sgd(model))
    record.state(torch.get_rng_state())


@case
def checkpointing(record):
    class Saving(Net):
        def forward(self, x):
            return self.last(checkpoint(self.middle, self.first(x), use_reentrant=False))

    model = ddp(Saving())
    train(record, model, sgd(model))


@case
def convolution(record):
    """Images, channels last, with statistics."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, CLASSES)
    )
    model = ddp(net.to(memory_format=torch.channels_last))
    optimizer = sgd(model)
    generator = torch.Generator().manual_seed(rank())
    for _ in range(STEPS):
        images = torch.randn(4, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        loss = model(images).pow(2).mean()
        loss.backward()
        optimizer.step()
        record.loss(loss)
    record.state(model, optimizer)


@case
def sparse_embedding(record):
    table = nn.Embedding(50, HIDDEN, sparse=True)
    model = ddp(nn.Sequential(table, nn.Linear(HIDDEN, CLASSES)))
    sparse = torch.optim.SparseAdam(table.parameters(), lr=0.01)
    dense = sgd(model.module[1])
    generator = torch.Generator().manual_seed(rank())
    for _ in range(STEPS):
        sparse.zero_grad()
        dense.zero_grad()
        loss = model(torch.randint(0, 50, (5, 3), generator=generator)).pow(2).mean()
        loss.backward()
        sparse.step()
        dense.step()
        record.loss(loss)
    record.state(model, sparse, dense)


@case
def gan(record):
    """Two models with an optimizer each, stepped in turn; one is frozen while the other learns."""
    critic = ddp(nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)))
    maker = ddp(nn.Sequential(nn.Linear(8, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, FEATURES)))
    for_critic = torch.optim.Adam(critic.parameters(), lr=0.005, betas=(0.5, 0.9))
    for_maker = torch.optim.Adam(maker.parameters(), lr=0.005, betas=(0.5, 0.9))
    data, noise = Data(), torch.Generator().manual_seed(rank())
    for _ in range(STEPS):
        real, latent = data.batch()[0], torch.randn(6, 8, generator=noise)
        critic.requires_grad_(True)
        for_critic.zero_grad()
        loss = critic(maker(latent).detach()).mean() - critic(real).clamp(max=1).mean()
        loss.backward()
        for_critic.step()
        record.loss(loss)
        critic.requires_grad_(False)
        for_maker.zero_grad()
        made = -critic.module(maker(latent)).mean()
        made.backward()
        for_maker.step()
        record.loss(made)
    record.state(critic, maker, for_critic, for_maker)


if __name__ == "__main__":
    main()
