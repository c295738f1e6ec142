"""What a fleet says of a job that does nothing for it: its steps, its memory, what each size is worth.

Buys: one DDP job measured from its first step to its end, over a suspend, a resize and the controller's
death, through agents, controller, interface and command line.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from midstep.client.types import JobView, MetricsView
from midstep.substrate.local.processes import send, wait_for
from tests.fleet.harness import WAIT_S, Fleet

# Trains until a file appears in its folder, all ranks for the same number of steps.
TRAIN = """
import os, time, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
net = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(200, 300), torch.nn.Linear(300, 10)))
opt = torch.optim.Adam(net.parameters())
print("bytes", sum(p.numel() * p.element_size() for p in net.parameters()), flush=True)
steps = 0
for until, then in (("pause", "go"), ("end", None)):
    while True:
        stop = torch.tensor([float(os.path.exists(until))])
        dist.all_reduce(stop)
        if stop.item():
            break
        net(torch.ones(8, 200)).pow(2).mean().backward()
        opt.step()
        opt.zero_grad()
        steps += 1
        time.sleep(0.01)
    print(until, steps, flush=True)
    while then and not os.path.exists(then):
        time.sleep(0.05)
"""


@pytest.mark.timeout(400)
def test_a_job_is_measured_without_its_help(fleet: Fleet) -> None:
    script = {"train.py": TRAIN}
    job = fleet.run("python", "train.py", files=script, name="measured", ranks=2, devices=2, node="north-1")
    measured(fleet, job, lambda m: 2 in sizes(m) and m.steps_per_s is not None)
    tell(fleet, job, "pause")
    steps = said(fleet, job, "pause ")
    fleet.suspend(job)
    still = measured(fleet, job, lambda m: m.steps_per_s is None)
    assert (still.steps, still.counted, still.shares) == (steps, "optimizer", None)
    assert still.memory.parameters == still.memory.gradients == said(fleet, job, "bytes ")
    assert still.memory.optimizer > 2 * still.memory.parameters  # two moments of Adam, and its counts
    assert still.reduced_bytes > steps * 2 * still.memory.parameters  # two ranks
    fleet.resume(job)
    fleet.resize(job, 1)
    tell(fleet, job, "go")
    now = measured(fleet, job, lambda m: set(sizes(m)) == {1, 2} and m.steps > steps)
    assert max(sizes(now).values()) == 1.0 and min(sizes(now).values()) > 0
    assert now.shares is not None
    assert now.shares.computing + now.shares.reducing + now.shares.waiting == pytest.approx(1.0)
    restart_controller(fleet)
    assert set(sizes(measured(fleet, job, lambda m: m.steps > now.steps))) == {1, 2}
    assert {m["job_id"] for m in fleet.json("top")["jobs"]} == {job.job_id}
    assert "measured" in fleet.cli("top", "--once").stdout
    tell(fleet, job, "end")
    fleet.wait(job, "completed")
    assert ended(fleet, job) == said(fleet, job, "end ")
    shown = fleet.cli("show", job.job_id).stdout
    assert f"steps     {said(fleet, job, 'end ')}\n" in shown and "EFFICIENCY" in shown


def measured(fleet: Fleet, job: JobView, seen: Callable[[MetricsView], bool]) -> MetricsView:
    """Wait for a reading."""
    found: list[MetricsView] = []

    def there() -> bool:
        with fleet.client() as client:
            found.append(client.metrics(job.job_id))
        return seen(found[-1])

    assert wait_for(there, WAIT_S, every_s=0.2), found[-1]
    return found[-1]


def ended(fleet: Fleet, job: JobView) -> int:
    """The steps of a job that has ended, as the command line has them."""
    return fleet.json("show", job.job_id)["metrics"]["steps"]


def sizes(metrics: MetricsView) -> dict[int, float]:
    """Efficiency by number of devices."""
    return {size.devices: size.efficiency for size in metrics.sizes}


def said(fleet: Fleet, job: JobView, word: str) -> int:
    """The number that the job printed after a word."""
    log = fleet.until_logs(job, word)
    return int(log.partition(word)[2].split()[0])


def tell(fleet: Fleet, job: JobView, name: str) -> None:
    """Make a file appear in the job's folder, where it is now."""
    folders: list[Path] = [path for path in fleet.state.rglob(f"{job.job_id}/home-0/work") if path.is_dir()]
    assert folders, "the job has no folder on this machine"
    for folder in folders:
        (folder / name).touch()


def restart_controller(fleet: Fleet) -> None:
    process = fleet.process("controller")
    assert process is not None
    send(process, signal.SIGKILL)
    fleet.until_restarted("controller", process)
    fleet.until_connected()
