"""Lightning: its Trainer with several strategies, manual optimization, callbacks."""

import logging
import os
import tempfile

import lightning
import torch
from kit import CLASSES, FEATURES, Net, case, main
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def loader():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(160, FEATURES, generator=generator)
    return DataLoader(
        TensorDataset(x, torch.randint(0, CLASSES, (160,), generator=generator)), batch_size=4, shuffle=True
    )


class Task(lightning.LightningModule):
    def __init__(self, record):
        super().__init__()
        self.net, self._record = Net(), [record]

    def training_step(self, batch, _):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x).float(), y)
        self._record[0].loss(loss)
        self.log("loss", loss, sync_dist=True)
        return loss

    def validation_step(self, batch, _):
        loss = nn.functional.cross_entropy(self.net(batch[0]).float(), batch[1])
        self.log("val", loss, sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Alternating(Task):
    """Two optimizers, stepped by hand."""

    def __init__(self, record):
        super().__init__(record)
        self.automatic_optimization = False

    def training_step(self, batch, number):
        optimizer = self.optimizers()[number % 2]
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self._record[0].loss(loss)

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.net.parameters(), lr=0.01),
            torch.optim.SGD(self.net.last.parameters(), lr=0.1),
        ]


def fit(record, task=Task, validate=True, **options):
    lightning.seed_everything(11, verbose=False)
    module = task(record)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=int(os.environ["LOCAL_WORLD_SIZE"]),
            num_nodes=int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"]),
            max_epochs=2,
            limit_train_batches=5,
            limit_val_batches=2,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            **({"strategy": "ddp"} | options),
        )
        trainer.fit(module, loader(), loader() if validate else None)
    record.say("metrics", sorted((name, repr(float(v))) for name, v in trainer.callback_metrics.items()))
    record.state(module, *trainer.optimizers)


@case
def lightning_ddp(record):
    fit(record, gradient_clip_val=0.5)


@case
def lightning_accumulation(record):
    fit(record, accumulate_grad_batches=2, precision="bf16-mixed")


@case
def lightning_averaging(record):
    fit(record, callbacks=[StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)])


@case
def lightning_manual(record):
    fit(record, task=Alternating, strategy="ddp_find_unused_parameters_true", validate=False)


if __name__ == "__main__":
    main(init=False)
