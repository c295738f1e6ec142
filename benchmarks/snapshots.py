"""How large snapshots are, as stored in an empty archive: packs, indexes and manifests.

The first of a DDP job (25 M parameters, Adam) is held against what its user would write, one `torch.save` of
model and optimizer, and a stated allowance for processes. The second, some steps later, is held against the
first: without what the training itself changed, which is the bytes of parameters, optimizer state and
gradients (once, for replicas have them alike) as the script's optimizer counts them after a step. Every job
has a fleet of its own, so it finds nothing of another one in the archive. The snapshots are checkpoints.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks._fleet import BOUND_S, JOBS, fleet, log, submit, torchrun
from benchmarks.registry import benchmark
from midstep.client.fleet import FleetClient
from midstep.client.types import JobView
from midstep.vault.archive.archive import Archive
from midstep.vault.snapshots import Snapshots

MB = 1e6
EXAMPLES = JOBS.parents[1] / "examples"
STEPS = (5, 10)  # how many lines say "step" when the snapshots are taken, at least
_LARGE = ("ddp.py", "--params", "large", "--optimizer", "adam", "--steps", "1000000", "--print-steps")


@dataclass(frozen=True, slots=True)
class Job:
    """A training script with its arguments, on so many ranks."""

    words: tuple[str, ...]
    ranks: int

    @property
    def name(self) -> str:
        return f"{self.words[0].removesuffix('.py')} x {self.ranks}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes stored by the first and the second snapshot; of a `torch.save`; that a step changes."""

    first: int
    second: int
    saved: int
    trained: int


LARGE = tuple(Job(_LARGE, ranks) for ranks in (1, 2, 4))
OTHERS = (
    Job(("digits.py", "--epochs", "100000", "--persistent-workers"), 1),
    Job(("digits.py", "--epochs", "100000"), 2),
    Job(("lm.py", "--steps", "1000000"), 2),
    Job(("plain.py", "--steps", "1000000"), 2),
)


@benchmark(
    "snapshot-first",
    bar=1.0,
    unit="x",
    against="1.3 x one torch.save + 60 MB + 15 MB a rank; 25 M parameters, Adam; worst of R = 1, 2, 4",
)
def snapshot_first() -> list[float]:
    return [max(_first(job) for job in LARGE)]


@benchmark(
    "snapshot-second",
    bar=0.1,
    unit="x",
    against="the first, without what training changed; worst of DDP, CNN with DataLoader workers, LM, plain",
)
def snapshot_second() -> list[float]:
    return [max(_second(job) for job in (*LARGE, *OTHERS))]


def _first(job: Job) -> float:
    sizes = measure(job)
    return sizes.first / (1.3 * sizes.saved + 60 * MB + 15 * MB * job.ranks)


def _second(job: Job) -> float:
    sizes = measure(job)
    return max(0, sizes.second - sizes.trained) / sizes.first


@cache
def measure(job: Job) -> Sizes:
    """Run it, take two snapshots."""
    trained = _trained(job)
    state = Path(tempfile.mkdtemp(prefix="midstep-bench-"))
    with fleet(devices=max(2, job.ranks), state=state) as client:
        vault = Snapshots(next((state / "vaults").iterdir()))
        view = submit(client, *job.words, ranks=job.ranks, folder=_script(job).parent)
        first, second = (_snapshot(client, view, vault, steps) for steps in STEPS)
        client.cancel(view.job_id)
    changed = trained["parameters"] + trained["optimizer"] + trained["gradients"]
    sizes = Sizes(first, second, trained["saved"], changed)
    words = (f"{name} {getattr(sizes, name) / MB:.1f} MB" for name in ("first", "second", "saved", "trained"))
    print(f"  {job.name}: {', '.join(words)}", file=sys.stderr)
    return sizes


def _snapshot(client: FleetClient, job: JobView, vault: Snapshots, steps: int) -> int:
    """Save it when it has made so many steps, as a checkpoint does; what was stored for that."""
    end_s = time.monotonic() + BOUND_S
    while log(client, job).count("step ") < steps:
        _check(end_s, f"{job.job_id} makes no steps")
        time.sleep(0.2)
    before = _stored(vault)
    old = client.job(job.job_id).snapshot
    client.checkpoint(job.job_id)
    while (snapshot := client.job(job.job_id).snapshot) in ("", old):
        _check(end_s, f"{job.job_id} is not saved")
        time.sleep(0.2)
    while snapshot not in {it.snapshot_id for it in _archive(vault).snapshots()}:
        _check(end_s, f"{snapshot} is not archived")
        time.sleep(0.5)
    return _stored(vault) - before


def _stored(vault: Snapshots) -> int:
    names = ("packs", "index", "snapshots")
    return sum(info.size for name in names for info in _archive(vault).backend.list(name))


def _archive(vault: Snapshots) -> Archive:
    archive = vault.archive(create=True)
    assert archive is not None
    return archive


def _check(end_s: float, words: str) -> None:
    if time.monotonic() > end_s:
        raise RuntimeError(f"{words} within {BOUND_S:g} s")


def _trained(job: Job) -> dict[str, int]:
    """What the script's optimizer says, run plainly in one process."""
    said = torchrun("trained.py", str(_script(job)), *job.words[1:], ranks=1)
    line = next(line for line in said.splitlines() if line.startswith("trained "))
    return json.loads(line.removeprefix("trained "))


def _script(job: Job) -> Path:
    folder = JOBS if (JOBS / job.words[0]).exists() else EXAMPLES
    return folder / job.words[0]


if __name__ == "__main__":
    for each in (*LARGE, *OTHERS):
        print(f"{each.name}: first {_first(each):.2f} of its bound, second {_second(each):.3f} of the first")
