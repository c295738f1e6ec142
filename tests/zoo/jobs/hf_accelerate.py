"""Hugging Face Accelerate: its own process group, data loaders, accumulation, clipping, checkpoints."""

import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, broadcast_object_list, set_seed
from kit import CLASSES, FEATURES, Net, case, main
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loader():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(192, FEATURES, generator=generator)
    y = torch.randint(0, CLASSES, (192,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)


def run(record, accelerator, clip=True):
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=20)
    model, optimizer, data, schedule = accelerator.prepare(model, optimizer, loader(), schedule)
    for x, y in data:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            if clip and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        record.loss(loss)
    record.say("gathered", [repr(float(v)) for v in accelerator.gather_for_metrics(loss.detach())])
    record.state(accelerator.unwrap_model(model), optimizer.optimizer)
    return model


@case
def accelerate_loop(record):
    set_seed(0)
    run(record, Accelerator(cpu=True))


@case
def accelerate_accumulation(record):
    set_seed(1)
    plugin = GradientAccumulationPlugin(num_steps=3, sync_with_dataloader=True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_plugin=plugin)
    model = run(record, accelerator)
    folder = broadcast_object_list([tempfile.mkdtemp()])[0]
    accelerator.save_state(folder)
    accelerator.wait_for_everyone()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    accelerator.load_state(folder)
    record.state(accelerator.unwrap_model(model))


@case
def accelerate_bf16(record):
    set_seed(2)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    run(record, accelerator)


def fresh(function):
    """Accelerate keeps its state in the class: forget it between cases, as a new script would."""

    def with_new_state(record):
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        function(record)

    with_new_state.__name__ = function.__name__
    return with_new_state


if __name__ == "__main__":
    from kit import CASES

    for name in list(CASES):
        CASES[name] = fresh(CASES[name])
    main(init=False)
