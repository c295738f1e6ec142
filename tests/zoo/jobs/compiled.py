"""torch.compile in its places: the model under DDP, DDP itself, the optimizer, FSDP2. Plain PyTorch."""

import torch
from kit import Net, case, ddp, main, sgd, size, train
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def forget():
    torch._dynamo.reset()


@case
def compiled_ddp(record):
    """Inductor's C++ kernels."""
    model = ddp()
    train(record, torch.compile(model), sgd(model))
    forget()


@case
def compiled_inside_ddp(record):
    model = ddp(torch.compile(Net(), backend="aot_eager"))
    train(record, model, sgd(model))
    forget()


@case
def compiled_optimizer(record):
    """The update is a kernel, compiled anew when the optimizer's state changes."""
    model = ddp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01))
    optimizer.step = torch.compile(optimizer.step)
    train(record, model, optimizer)
    forget()


@case
def compiled_fsdp2(record):
    model = Net()
    for layer in (model.first, model.middle, model.last):
        layer.compile(backend="aot_eager")
        fully_shard(layer, mesh=init_device_mesh("cpu", (size(),)))
    fully_shard(model, mesh=init_device_mesh("cpu", (size(),)))
    train(record, model, torch.optim.AdamW(model.parameters(), lr=0.01))
    forget()


@case
def compiled_loop(record):
    """The optimizer's step is inside of a compiled function, with breaks where DDP communicates."""
    model = ddp()
    optimizer = sgd(model)

    @torch.compile(backend="aot_eager")
    def update():
        optimizer.step()
        optimizer.zero_grad()

    def before(step):
        if step % 2:
            update()  # its gradients are gone then: the plain step that follows does nothing

    train(record, model, optimizer, before_step=before)
    forget()


if __name__ == "__main__":
    main()
