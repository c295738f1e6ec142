"""What happens beside the training: hooks, threads, files, process ids, the time. Plain PyTorch."""

import os
import tempfile
import threading
import time

import torch
import torch.distributed as dist
from kit import STEPS, Data, case, ddp, digest, loss_of, main, rank, sgd, train


@case
def side_effects(record):
    """Hooks of the optimizer, a closure, and a step that is replaced: each rank's own must run."""
    model, data = ddp(), Data()
    optimizer = sgd(model)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(f"before {rank()}"))
    optimizer.register_step_post_hook(lambda *_: seen.append(f"after {rank()}"))
    original = optimizer.step

    def step(closure=None):
        seen.append("step")
        return original(closure)

    optimizer.step = step
    for _ in range(STEPS):
        batch = data.batch()

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        record.loss(optimizer.step(closure))
    record.say("seen", digest(seen))
    record.say("count", len(seen))
    record.state(model, optimizer)


@case
def stepped_in_a_thread(record):
    model, data = ddp(), Data()
    optimizer = sgd(model)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, data.batch())
        loss.backward()
        thread = threading.Thread(target=optimizer.step)
        thread.start()
        thread.join()
        record.loss(loss)
    record.state(model, optimizer)


@case
def waits_for_a_file(record):
    """Ranks wait for each other without torch: each polls for a file that the one before it wrote."""
    model = ddp()
    names = [tempfile.mkdtemp() if rank() == 0 else None]
    dist.broadcast_object_list(names)

    def after(step):
        if rank() > 0:
            while not os.path.exists(f"{names[0]}/{step}-{rank() - 1}"):
                time.sleep(0.002)
        open(f"{names[0]}/{step}-{rank()}", "w").close()

    train(record, model, sgd(model), after=after)


def shadowed(record, draw):
    """Weights depend on something that differs from run to run: checked against the same sums by hand."""
    model, data = ddp(), Data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    copies = [p.detach().clone() for p in model.parameters()]
    equal = True
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, data.batch()).backward()
        optimizer.step()
        for p, twin in zip(model.parameters(), copies):
            twin.add_(p.grad, alpha=-0.05)
            if step >= 3:
                noise = torch.full_like(twin, draw())
                p.data.add_(noise)
                twin.add_(noise)
        equal = equal and all(torch.equal(p, twin) for p, twin in zip(model.parameters(), copies))
    record.say("as by hand", equal)
    assert equal


@case
def depends_on_getpid(record):
    shadowed(record, lambda: (os.getpid() % 1000) * 1e-6)


@case
def depends_on_the_time(record):
    shadowed(record, lambda: (time.time_ns() % 1000) * 1e-6)


@case
def depends_on_chance(record):
    shadowed(record, lambda: int.from_bytes(os.urandom(2), "little") * 1e-8)


if __name__ == "__main__":
    main()
