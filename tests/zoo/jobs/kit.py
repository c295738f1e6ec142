"""What the zoo's scripts share: a register of cases, tiny data and models, and exact output. Plain PyTorch.

Run as ``torchrun ... ddp.py CASE ...``; no case: all of the script's. Every rank prints lines of case, what
and value, with tabs between; floats with all their digits, tensors as hashes. So two runs are equal exactly
when their output is.
"""

import hashlib
import random
import sys
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

warnings.filterwarnings("ignore")
STEPS = 12
MIDDLE = STEPS // 2  # where the odd things begin
FEATURES, HIDDEN, CLASSES, BATCH = 24, 160, 10, 6
CASES = {}
RANK = SIZE = 0


class Record:
    """Prints what a case has to show."""

    def __init__(self, name):
        self.name = name

    def say(self, what, value):
        print(self.name, what, value, sep="\t", flush=True)

    def loss(self, value):
        self.say("loss", repr(float(value)))

    def state(self, *things):
        """The hash of modules, optimizers, tensors and plain values."""
        self.say("state", digest(*things))


def case(function):
    """Register a case under its function's name; it is called with a Record."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


def odd(record, act, **options):
    """Train, and call ``act(model, optimizer, step)`` after each step from the middle on."""
    model = ddp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def after(step):
        if step >= MIDDLE:
            act(model, optimizer, step)

    train(record, model, optimizer, after=after, **options)


def mine():
    """A number that differs between ranks."""
    return 1.0 + 0.001 * (rank() + 1)


def main(init=True):
    """Run the cases that the command line names. ``init``: False where a library makes the group itself."""
    names = sys.argv[1:] or list(CASES)
    if init:
        start()
    for name in names:
        print("case", name, file=sys.stderr, flush=True)
        seed(0)
        CASES[name](Record(name))
        _tell_spliced(name)
    if dist.is_initialized():
        dist.destroy_process_group()


def _tell_spliced(name):
    """For the test that runs us, if under Midstep: updates made for all, and taken from another rank."""
    module = sys.modules.get("_midstep.runtime.splice.counters")
    if module is not None:
        told = module.COUNTERS.executed_steps, module.COUNTERS.followed_steps
        print("spliced", name, *told, file=sys.stderr, flush=True)


def start():
    """The process group, from the environment."""
    global RANK, SIZE
    dist.init_process_group("gloo")
    RANK, SIZE = dist.get_rank(), dist.get_world_size()


def seed(number):
    random.seed(number)
    torch.manual_seed(number)


def rank():
    return dist.get_rank()


def size():
    return dist.get_world_size()


def digest(*things):
    """A hash of everything in ``things``, tensors by their bytes."""
    whole = hashlib.sha256()
    for piece in _pieces(things):
        whole.update(piece)
    return whole.hexdigest()[:32]


def _pieces(thing):
    if isinstance(thing, nn.Module):
        thing = [*thing.named_parameters(remove_duplicate=False), *thing.named_buffers()]
    elif isinstance(thing, torch.optim.Optimizer):
        thing = [thing.state.get(p, None) for group in thing.param_groups for p in group["params"]]
    if isinstance(thing, torch.Tensor):
        yield from _tensor(thing)
    elif isinstance(thing, dict):
        for key in thing:
            yield from _pieces((key, thing[key]))
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from _pieces(part)
    else:
        yield repr(thing).encode()


def _tensor(tensor):
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    yield repr((tuple(tensor.shape), tensor.dtype)).encode()
    yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Data:
    """Batches of a rank's own, from a generator of its own."""

    def __init__(self, shift=0):
        self.generator = torch.Generator().manual_seed(100 + rank() + 1000 * shift)

    def batch(self, rows=BATCH):
        x = torch.randn(rows, FEATURES, generator=self.generator)
        return x, torch.randint(0, CLASSES, (rows,), generator=self.generator)

    def same(self, rows=BATCH, step=0):
        """A batch that all ranks share."""
        everywhere = torch.Generator().manual_seed(7 + step)
        x = torch.randn(rows, FEATURES, generator=everywhere)
        return x, torch.randint(0, CLASSES, (rows,), generator=everywhere)


class Net(nn.Module):
    """Three layers; the middle one's weights are large enough to be worth sharing between replicas."""

    def __init__(self, middle=None):
        super().__init__()
        self.first = nn.Linear(FEATURES, HIDDEN)
        self.middle = nn.Linear(HIDDEN, HIDDEN) if middle is None else middle
        self.last = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.middle(torch.tanh(self.first(x)))))


def ddp(model=None, **options):
    """The model, or a new one from the same seed in every rank, under DistributedDataParallel."""
    return DistributedDataParallel(Net() if model is None else model, **options)


def sgd(model, lr=0.05):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]).float(), batch[1])


def train(record, model, optimizer, steps=STEPS, after=None, data=None, before_step=None):
    """The plain loop; prints every loss and a hash at the end.

    ``before_step`` and ``after``: called with the step's number before and after ``optimizer.step``.
    """
    data = data or Data()
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, data.batch())
        loss.backward()
        if before_step:
            before_step(step)
        optimizer.step()
        record.loss(loss)
        if after:
            after(step)
    record.state(model, optimizer)
