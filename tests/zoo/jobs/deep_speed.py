"""DeepSpeed on the CPU: ZeRO stages 0 to 3, bf16, accumulation and clipping."""

import logging
import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch
from kit import STEPS, Data, Net, case, loss_of, main

logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
BATCH_CONFIG = {"train_micro_batch_size_per_gpu": 6, "zero_allow_untested_optimizer": True}


def run(record, stage, own=None, **config):
    settings = {**BATCH_CONFIG, "zero_optimization": {"stage": stage, "reduce_bucket_size": 4000}, **config}
    model = Net()
    mine = torch.optim.AdamW(model.parameters(), lr=0.01) if own is None else None
    engine, *_ = deepspeed.initialize(model=model, optimizer=mine, config=settings)
    data, dtype = Data(), next(engine.module.parameters()).dtype
    for _ in range(STEPS):
        x, y = data.batch()
        loss = loss_of(engine, (x.to(dtype), y))
        engine.backward(loss)
        engine.step()
        record.loss(loss)
    if stage == 3:
        with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
            record.state(engine.module)
    else:
        record.state(engine.module)
    engine.destroy()


@case
def stage_0(record):
    run(record, 0)


@case
def stage_1(record):
    run(record, 1)


@case
def stage_2(record):
    run(record, 2, gradient_clipping=0.5)


@case
def stage_3(record):
    run(record, 3)


@case
def stage_1_bf16(record):
    run(record, 1, bf16={"enabled": True})


@case
def stage_2_accumulation(record):
    """DeepSpeed's own configuration makes the optimizer and the schedule."""
    adam = {"type": "AdamW", "params": {"lr": 0.01, "torch_adam": True}}
    warm = {"type": "WarmupLR", "params": {"warmup_num_steps": 4, "warmup_max_lr": 0.01}}
    run(record, 2, own=adam, gradient_accumulation_steps=2, optimizer=adam, scheduler=warm)


if __name__ == "__main__":
    # Kernels for inference over shared memory, which have to be compiled first; training does not use them.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", verbose=False)
    main(init=False)
