"""Ranks that wait for each other in every way there is, while they share a device. Prints what each computed.
Plain PyTorch; nothing here may hang, whatever the order in which the ranks are let run.
"""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time

import torch
import torch.distributed as dist
import torch.utils.checkpoint
from torch.nn.parallel import DistributedDataParallel

torch.set_num_threads(1)
dist.init_process_group("gloo")
RANK, SIZE = dist.get_rank(), dist.get_world_size()
LOAD = int(os.environ.get("LOAD", "60"))


def compute(amount=1):
    """A rank-dependent value that takes some milliseconds."""
    x = torch.full((LOAD, LOAD), 1.0 / (RANK + 2))
    for _ in range(20 * amount):
        x = torch.tanh(x @ x)
    return float(x.sum())


def total(value):
    tensor = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(tensor)
    return float(tensor).hex()


def file_barrier(name, pause_s):
    """Every rank makes a file and looks for those of all others: asleep between two looks, or not."""
    for step in range(4):
        compute()
        with open(f"{name}-{step}-{RANK}", "w"):
            pass
        while not all(os.path.exists(f"{name}-{step}-{rank}") for rank in range(SIZE)):
            if pause_s:
                time.sleep(pause_s)
    return total(compute())


def sleeping_barrier():
    return file_barrier("sleeping", 0.002)


def spinning_barrier():
    return file_barrier("spinning", 0.0)


def file_lock():
    """Inside a lock of the user's, a rank waits for others, who wait for the lock before they come."""
    if RANK == 0:
        with open("lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            dist.barrier(group=None)
            compute(3)
    else:
        dist.barrier()
        with open("lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            compute()
    return total(RANK)


def thread_and_subprocess():
    """The main thread waits for a thread, which waits for a process and a collective under a lock."""
    lock, found = threading.Lock(), []

    def work():
        with lock:
            code = "import time; time.sleep(0.05); print(7)"
            child = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
            found.append(total(float(child.stdout) + RANK))

    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        compute()
        with lock:
            pass
        thread.join()
    return found


def loader():
    """One rank only reads while the others train among themselves."""
    others = dist.new_group(list(range(1, SIZE)))
    if RANK == 0:
        result = 0
        for _ in range(200):
            with open(sys.executable, "rb") as file:
                result += len(file.read(1 << 16))
        time.sleep(0.1)
    else:
        tensor = torch.ones(4)
        for _ in range(20):
            dist.all_reduce(tensor, group=others)
            compute()
        result = float(tensor.sum())
    dist.barrier()
    return result


def sleeper():
    for step in range(6):
        if step % SIZE == RANK:
            time.sleep(0.03)
        last = total(step + RANK)
    return last


def uneven():
    """Work that differs by a factor of the world size from rank to rank."""
    return [total(compute(1 + 4 * ((RANK + step) % SIZE))) for step in range(8)]


def asynchronous():
    works = []
    tensors = [torch.full((5000 * (k + 1),), float(RANK + k)) for k in range(12)]
    for tensor in tensors:
        works.append(dist.all_reduce(tensor, async_op=True))
        compute()
    while not works[-1].is_completed():
        time.sleep(0.001)
    for work in reversed(works):
        work.wait()
    return [float(tensor.sum()) for tensor in tensors]


def ping_pong():
    ball = torch.tensor([1.0])
    for _ in range(10):
        for rank in range(SIZE):
            peer = (rank + 1) % SIZE
            if rank == RANK:
                dist.send(ball + 1, peer)
            elif peer == RANK:
                dist.recv(ball, rank)
    return float(ball)


def store():
    """Waits in the store, for keys that come late."""
    box = dist.distributed_c10d._get_default_store()
    for step in range(5):
        if step % SIZE == RANK:
            compute(2)
            box.set(f"key{step}", str(step))
        else:
            box.wait([f"key{step}"])
        compute()
    dist.barrier()
    return int(box.add("count", 0))


def trained(net, hook=None, **options):
    """The losses of some steps."""
    model = DistributedDataParallel(net, bucket_cap_mb=0.05, **options)
    if hook is not None:
        model.register_comm_hook(None, hook)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    data = torch.Generator().manual_seed(RANK)
    losses = []
    for _ in range(12):
        loss = (model(torch.randn(16, 80, generator=data)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item().hex())
    return losses


def training():
    torch.manual_seed(0)
    return trained(torch.nn.Sequential(torch.nn.Linear(80, 300), torch.nn.ReLU(), torch.nn.Linear(300, 80)))


def not_at_the_end():
    """A rank posts in a backward and goes on before it waits; the others wait for what it does next."""
    works, x = [], torch.ones(3, requires_grad=True)
    for step in range(4):
        posted = torch.full((3,), float(RANK + step))

        def post(grad, posted=posted):
            works.append(dist.all_reduce(posted, async_op=True))
            return grad

        y = x * 2
        y.register_hook(post)
        if step % SIZE == RANK:
            y.sum().backward()
            open(f"after-{step}", "w").close()
        else:
            while not os.path.exists(f"after-{step}"):
                time.sleep(0.001)
            y.sum().backward()
        works[-1].wait()
    return posted.tolist()


def waits_in_hooks():
    """A hook waits in C++ for what it has just posted, in the middle of the backward."""

    def hook(_, bucket):
        first = dist.all_reduce(bucket.buffer().div_(SIZE), async_op=True).get_future()
        second = dist.all_reduce(torch.ones(2), async_op=True).get_future()
        torch.futures.collect_all([first, second]).wait()
        return dist.all_reduce(torch.ones(3), async_op=True).get_future().then(lambda _: bucket.buffer())

    torch.manual_seed(0)
    return trained(torch.nn.Sequential(torch.nn.Linear(80, 300), torch.nn.Linear(300, 80)), hook)


def threads():
    """Whether a training that takes turns has made this process one of several threads."""
    training()
    return [thread.name for thread in threading.enumerate()]


class Again(torch.nn.Module):
    """Computes its second half once more in the backward: a backward within the backward."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(80, 300), torch.nn.Linear(300, 80)

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.second, torch.tanh(self.first(x)), use_reentrant=True)


def a_backward_within():
    torch.manual_seed(0)
    return trained(Again(), static_graph=True) + trained(Again())


CASES = [
    sleeping_barrier,
    spinning_barrier,
    file_lock,
    thread_and_subprocess,
    loader,
    sleeper,
    uneven,
    asynchronous,
    ping_pong,
    store,
    training,
    not_at_the_end,
    waits_in_hooks,
    a_backward_within,
]
chosen = os.environ.get("CASES", "")
results = {}
for case in [globals()[name] for name in chosen.split(",")] if chosen else CASES:
    results[case.__name__] = case()
    print(RANK, case.__name__, time.monotonic(), file=sys.stderr, flush=True)
    dist.barrier()
print(json.dumps(results))
dist.destroy_process_group()
