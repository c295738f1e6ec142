"""Training in ways that suit splicing and that try to break it; prints losses, weights, what splicing did.

Plain PyTorch but for ``midstep_says``; named scenarios are run one after the other in one process.
"""

import copy
import ctypes
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import sys
import threading
import warnings

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

warnings.filterwarnings("ignore")
OURS = "_midstep" in sys.modules
EPOCH = [1]


def part(name):
    return importlib.import_module("_midstep.runtime." + name)


def seat(epoch, ranks=None):
    """Who shares the device from now on."""
    EPOCH[0] = epoch
    if OURS:
        seating = part("splice.seating")
        ranks = tuple(range(SIZE)) if ranks is None else ranks
        seating.use(lambda: seating.Seating(epoch, 0, ranks))


dist.init_process_group("gloo")
RANK, SIZE = dist.get_rank(), dist.get_world_size()
torch.use_deterministic_algorithms(True)
seat(1)


def midstep_says():
    if not OURS:
        return None
    counters = part("splice.counters").COUNTERS
    names = ("own_steps", "executed_steps", "followed_steps", "formed")
    return {name: getattr(counters, name) for name in names}


def reasons():
    return dict(part("splice.counters").COUNTERS.reasons) if OURS else None


class Net(torch.nn.Module):
    def __init__(self, tied=False, branch=False):
        super().__init__()
        self.first = torch.nn.Linear(64, 700)
        self.second = torch.nn.Linear(700, 700, bias=False)
        self.third = self.second if tied else torch.nn.Linear(700, 700)
        self.last = torch.nn.Linear(700, 8)
        self.branch = torch.nn.Linear(700, 700) if branch else None

    def forward(self, x, use=False):
        y = torch.relu(self.second(torch.relu(self.first(x))))
        y = self.third(self.branch(y) if use else y)
        return self.last(y)


def train(make, steps=12, model=None, before=None, after=None, forward=None, wrap=True, scheduler=None):
    """Train; every loss as exact text, and the weights' hash. ``before(step, net, opt)``: before opt.step."""
    torch.manual_seed(0)
    net = (model or Net)()
    ddp = DistributedDataParallel(net) if wrap else net
    opt = make(net.parameters())
    lr = scheduler(opt) if scheduler else None
    data = torch.Generator().manual_seed(100 + RANK)
    losses = []
    for step in range(steps):
        x = torch.randn(4, 64, generator=data)
        y = forward(ddp, x, step) if forward else ddp(x)
        loss = y.pow(2).mean()
        opt.zero_grad()
        loss.backward()
        if before and before(step, net, opt):
            continue
        opt.step()
        if lr:
            lr.step()
        losses.append(float(loss.detach()).hex())
        if after:
            opt = after(step, net, opt) or opt
    return [*losses, digest(net, opt)]


def digest(net, opt):
    weights = b"".join(p.detach().numpy().tobytes() for p in net.parameters())
    states = [v for p in net.parameters() for v in opt.state[p].values() if isinstance(v, torch.Tensor)]
    versions = [p._version for p in net.parameters()]
    grads = b"".join(p.grad.numpy().tobytes() for p in net.parameters() if p.grad is not None)
    content = weights + b"".join(s.numpy().tobytes() for s in states) + grads + repr(versions).encode()
    return hashlib.sha256(content).hexdigest()


def sgd(p):
    return torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-4)


def adam(p):
    return torch.optim.Adam(p, lr=0.01)


class Signed(torch.optim.Optimizer):
    """A user's own."""

    def __init__(self, p):
        super().__init__(p, {"lr": 0.01})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad.sign() * (1 + RANK * 0)


class Doubled(torch.optim.SGD):
    """A user's own, of torch's."""

    def step(self, closure=None):
        super().step()
        return super().step()


# ways that suit it


def plain_sgd():
    return train(lambda p: torch.optim.SGD(p, lr=0.05))


def momentum():
    return train(sgd)


def adam_():
    return train(adam)


def adam_foreach():
    return train(lambda p: torch.optim.Adam(p, lr=0.01, foreach=True, weight_decay=0.1))


def adam_fused():
    return train(lambda p: torch.optim.Adam(p, lr=0.01, fused=True, amsgrad=True))


def adamw():
    steps = torch.optim.lr_scheduler.StepLR
    return train(lambda p: torch.optim.AdamW(p, lr=0.01), scheduler=lambda opt: steps(opt, 3))


def adamw_fused():
    return train(lambda p: torch.optim.AdamW(p, lr=0.01, fused=True))


def adafactor():
    return train(lambda p: torch.optim.Adafactor(p, lr=0.01))


def others():
    kinds = [torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax, torch.optim.Adagrad]
    kinds += [torch.optim.RMSprop, torch.optim.Adadelta, torch.optim.Rprop, torch.optim.ASGD]
    return [train(lambda p, k=kind: k(p, lr=0.01), steps=8) for kind in kinds]


def tied():
    return train(adam, model=lambda: Net(tied=True))


def groups():
    def make(p):
        p = list(p)
        return torch.optim.AdamW([{"params": p[:2], "lr": 0.1}, {"params": p[2:]}], lr=0.01)

    return train(make)


def clipped():
    return train(adam, before=lambda s, n, o: torch.nn.utils.clip_grad_norm_(n.parameters(), 0.1) and None)


def hooks():
    seen = []

    def make(p):
        opt = adam(p)
        opt.register_step_pre_hook(lambda o, a, k: seen.append(("pre", RANK)))
        opt.register_step_post_hook(lambda o, a, k: seen.append(("post", RANK)))
        return opt

    return [train(make), seen]


def two_optimizers():
    both = []

    def make(p):
        p = list(p)
        both[:] = [torch.optim.Adam(p[:3], lr=0.01)]
        return torch.optim.SGD(p[3:], lr=0.01, momentum=0.9)

    def before(step, net, opt):
        both[0].step()

    return [train(make, before=before), digest(torch.nn.Linear(1, 1), both[0])]


def saved():
    texts = []

    def after(step, net, opt):
        buffer = io.BytesIO()
        torch.save([net.state_dict(), opt.state_dict(), copy.deepcopy(net)], buffer)
        buffer.seek(0)
        again = torch.load(buffer, weights_only=False)
        texts.append(hashlib.sha256(again[0]["second.weight"].numpy().tobytes()).hexdigest())

    return [train(adam, after=after), texts]


# ways that try to break it


def by_hand():
    def after(step, net, opt):
        if step in (5, 6):
            with torch.no_grad():
                net.second.weight[3, 5] += 1.0

    return train(adam, after=after)


def by_hand_every_step():
    def after(step, net, opt):
        net.second.weight.data.clamp_(-0.02, 0.02)

    return train(adam, after=after, steps=30)


def by_data():
    def after(step, net, opt):
        if step == 6:
            net.second.weight.data = net.second.weight.data * 0.5

    return train(adam, after=after)


def by_numpy_on_one_rank():
    views = []

    def after(step, net, opt):
        if step == 5:
            views.append(net.second.weight.detach().numpy())
        if step == 6 and RANK == 1:
            views[0][100:200] *= 0.5

    return train(adam, after=after)


def by_memmove():
    def after(step, net, opt):
        if step == 6:
            value = ctypes.c_float(0.25 + RANK)
            ctypes.memmove(net.second.weight.data_ptr() + 400004, ctypes.addressof(value), 4)

    return train(adam, after=after)


def small_by_hand():
    def after(step, net, opt):
        if step == 6:
            net.first.bias.data[3] = 7.0 + RANK

    return train(adam, after=after)


def edge_by_hand():
    def after(step, net, opt):
        if step == 6 and RANK == 0:
            net.second.weight.data.view(-1)[0] = 7.0
            net.third.weight.data.view(-1)[-1] = 7.0

    return train(adam, after=after)


def state_by_hand():
    def after(step, net, opt):
        if step == 6:
            opt.state[net.second.weight]["exp_avg"].mul_(0.5)
        if step == 9:
            opt.state[net.second.weight]["step"].add_(RANK)

    return train(adam, after=after)


class Deep(torch.nn.Sequential):
    """Nothing in it is large, but there is much of it."""

    def __init__(self):
        super().__init__(*[torch.nn.Linear(64 if not n else 8, 8) for n in range(40)])


def many_small():
    def after(step, net, opt):
        if step in (6, 9):
            seat(EPOCH[0] + 1)  # the same block again
        if OURS and step not in (0, 1):
            assert part("splice.counters").COUNTERS.copied_bytes == 0
            assert part("splice.counters").COUNTERS.shared_bytes > 0

    return train(adam, model=Deep, after=after)


def many_small_by_hand():
    """Parts of the block, of its neighbours, and a parameter that is copied; then one that is exchanged."""

    def after(step, net, opt):
        state = opt.state[net[20].weight]
        if step == 5:
            state["exp_avg"][3, 3] += 1.0
        if step == 12:
            net[7].bias.data[1] -= 1.0
        if step == 15:
            state["step"] = state["step"].clone()
        if step == 35 and RANK:
            state["exp_avg"], state["exp_avg_sq"] = state["exp_avg_sq"], state["exp_avg"]

    return train(adam, model=Deep, after=after, steps=40)


def held_state():
    """Somebody knows a view of a small state tensor: it stays where it is, and is copied."""
    views = []

    def after(step, net, opt):
        if step == 0:
            views.append(opt.state[net[20].weight]["exp_avg"].view(-1))
        if step == 7:
            assert views[0].data_ptr() == opt.state[net[20].weight]["exp_avg"].data_ptr()
            assert not OURS or part("splice.counters").COUNTERS.copied_bytes == views[0].nbytes

    return train(adam, model=Deep, after=after)


def different_from_the_start():
    def forward(net, x, step):
        if step == 0:
            net.second.weight.data.add_(RANK)
        return net(x)

    return train(adam, forward=forward, wrap=False)


def different_gradients():
    return train(adam, wrap=False)


def gradient_by_hand():
    def before(step, net, opt):
        if step == 6:
            net.second.weight.grad[5, 5] += 1e-3 * RANK

    return train(adam, before=before)


def small_gradient_by_hand():
    def before(step, net, opt):
        if step == 6:
            net[20].bias.grad[5] += 1e-3 * RANK

    def after(step, net, opt):
        if OURS and step in (5, 6):
            counters = part("splice.counters").COUNTERS
            assert ("the ranks' gradients or settings differ" in counters.reasons) == (step == 6)

    return train(adam, model=Deep, before=before, after=after)


def permuted_gradients():
    def before(step, net, opt):
        if step == 6:
            rows = list(range(700))
            rows[3], rows[500] = (500, 3) if RANK else (3, 500)
            net.second.weight.grad.copy_(net.second.weight.grad[rows])

    return train(adam, before=before)


def different_learning_rate():
    def before(step, net, opt):
        if step == 6:
            opt.param_groups[0]["lr"] = 0.02 + 0.01 * RANK

    return train(adam, before=before)


def skipped_by_one():
    return train(adam, before=lambda step, net, opt: step == 6 and RANK == 1)


def skipped_by_all():
    return train(adam, before=lambda step, net, opt: step == 6)


def reloaded():
    kept = []

    def after(step, net, opt):
        if step == 3:
            kept.append([copy.deepcopy(net.state_dict()), copy.deepcopy(opt.state_dict())])
        if step == 7:
            net.load_state_dict(kept[0][0])
            opt.load_state_dict(kept[0][1])

    return train(adam, after=after, steps=20)


def made_anew():
    def after(step, net, opt):
        return adam(net.parameters()) if step % 5 == 4 else None

    return train(adam, after=after, steps=20)


def group_added():
    extra = torch.nn.Parameter(torch.ones(300, 300))

    def after(step, net, opt):
        if step == 6:
            opt.add_param_group({"params": [extra]})

    def before(step, net, opt):
        extra.grad = torch.full((300, 300), 0.5 + step)

    return [train(adam, before=before, after=after, steps=24), float(extra.detach().sum()).hex()]


def late_gradient():
    def forward(net, x, step):
        return net(x, use=step == 6)

    return train(adam, model=lambda: Net(branch=True), wrap=False, steps=10, before=alike, forward=forward)


def alike(step, net, opt):
    for p in net.parameters():
        if p.grad is not None:
            dist.all_reduce(p.grad)


def storage_resized():
    def after(step, net, opt):
        if step == 6:
            weight = net.second.weight
            kept = weight.detach().clone()
            weight.untyped_storage().resize_(0)
            weight.untyped_storage().resize_(kept.numel() * 4)
            weight.data.copy_(kept)

    return train(adam, after=after)


def users_own():
    return [train(Signed), train(lambda p: Doubled(p, lr=0.01, momentum=0.5))]


def closure():
    def before(step, net, opt):
        if step == 6:
            opt.step(lambda: 1.0)

    return train(sgd, before=before)


def child(pipe, weight):
    """What a forked child sees, long after its parent has gone on."""
    pipe.recv()
    pipe.send(content(weight))


def content(tensor):
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()


def forked():
    texts = []

    def after(step, net, opt):
        if step in (5, 6, 9):
            fork = multiprocessing.get_context("fork")
            here, there = fork.Pipe()
            process = fork.Process(target=child, args=(there, net.second.weight))
            process.start()
            texts.append([content(net.second.weight), here, process])
        if step in (7, 11):
            for entry in texts:
                if len(entry) == 3:
                    _, here, process = entry
                    here.send(0)
                    entry[1:] = [here.recv()]
                    process.join()

    result = train(adam, after=after, steps=14)
    assert all(first == second for first, second in texts), texts
    return [result, texts]


def threads():
    """A thread of the rank reads and forks while it steps."""
    stop = threading.Event()
    net = []

    def read():
        while not stop.wait(0.01):
            for each in net:
                float(each.second.weight.detach().sum())
            if os.fork() == 0:
                os._exit(0)
            os.wait()

    reader = threading.Thread(target=read)
    reader.start()
    result = train(adam, steps=30, before=lambda step, n, opt: net.append(n) if step == 2 else None)
    stop.set()
    reader.join()
    return result


def anomaly():
    """torch itself notices that a weight was updated between forward and backward."""

    def before(step, net, opt):
        if step == 8:
            y = net(torch.ones(2, 64)).sum()
            opt.step()
            try:
                y.backward()
            except RuntimeError as error:
                assert "modified by an inplace operation" in str(error)
                return
            raise AssertionError("not noticed")

    return train(adam, before=before)


def failing_step():
    def before(step, net, opt):
        if step == 6:
            opt.param_groups[0]["betas"] = ("x", "y")
            try:
                opt.step()
            except Exception as error:
                opt.param_groups[0]["betas"] = (0.9, 0.999)
                assert type(error) is not AssertionError
                return
            raise AssertionError("no error")

    return train(adam, before=before)


def epochs():
    def after(step, net, opt):
        if step == 6:
            seat(EPOCH[0] + 1)
        if step == 10:
            seat(EPOCH[0] + 1, (RANK,))
        if step == 14:
            seat(EPOCH[0] + 1)

    return train(adam, after=after, steps=20)


def resized_while_waiting():
    """Rank 0 comes to a board that the others never see: they are told of the next resize before."""

    def after(step, net, opt):
        if step != 6 or not OURS:
            return
        seat(EPOCH[0] + (1 if RANK == 0 else 2))
        if RANK == 0:
            threading.Timer(0.3, seat, [EPOCH[0] + 1]).start()

    domain = part("splice.domain") if OURS else None
    if domain:
        domain.PATIENCE_S, usual_s = 10_000.0, domain.PATIENCE_S
    try:
        return train(adam, after=after, steps=20)
    finally:
        if domain:
            domain.PATIENCE_S = usual_s


def run(names):
    result, said, why = {}, {}, {}
    before = midstep_says()
    for name in names:
        EPOCH[0] += 1
        seat(EPOCH[0])
        result[name] = globals()[name]()
        if OURS:
            now = midstep_says()
            said[name] = {key: now[key] - before[key] for key in now}
            why[name], before = reasons(), now
            part("splice.counters").COUNTERS.reasons.clear()
    folder = part("splice.seating").sharers().folder() if OURS else ""
    return {"result": result, "said": said, "why": why, "folder": folder}


if __name__ == "__main__":
    output = run(sys.argv[1:])
    dist.destroy_process_group()
    print(json.dumps(output))
