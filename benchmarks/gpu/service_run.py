"""A job of the fleet in `service.py`: what it has printed, what moving it cost, whether it is right."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from common import SCRATCH, emit, wait_for

from midstep.client.fleet import FleetClient
from midstep.client.types import JobRequest, JobView
from midstep.client.workdir import pack, scan
from midstep.model.fleet import Device
from midstep.substrate.local.devices import gpu_devices, usable_cpus

NODES = ("a", "b", "c", "d")
JOBS = Path(__file__).resolve().parent / "jobs"
ENDED = ("completed", "failed", "cancelled")
CUDA = (sys.argv[1:] or ["cuda"])[0] == "cuda"
DEVICE = "cuda" if CUDA else "cpu"
ROOT = SCRATCH / "service"
BOUND_S = float(os.environ.get("MIDSTEP_GPU_BOUND_S", "90"))
_KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")


def device() -> tuple[Device, ...]:
    cpus = usable_cpus()
    if not CUDA:
        return (Device(0, "cpu-1c", tuple(cpus)),)
    return gpu_devices(cpus)[:1]


@dataclass
class Run:
    """One job of the fleet."""

    client: FleetClient
    name: str
    job: str
    ranks: int
    texts: dict[int, str] = field(default_factory=dict)

    def log(self, rank: int = 0) -> str:
        text = self.texts.get(rank, "")
        while piece := self.client.logs(self.job, rank, len(text.encode())).text:
            text += piece
        self.texts[rank] = text
        return text

    def lines(self, rank: int = 0) -> list[str]:
        return [line for line in self.log(rank).split("\n")[:-1] if line.startswith(("step ", "weights "))]

    def until_steps(self, count: int) -> None:
        def enough() -> bool:
            if self.client.job(self.job).state in ENDED:
                return len(self.lines()) >= count or self.explain("ended too early")
            return len(self.lines()) >= count

        wait_for(f"{count} steps of {self.name}: {self.log()[-800:]}", enough, BOUND_S, 0.05)

    def until_running(self, more: int) -> None:
        """Running, and so many steps further than now: also when its agent was restarted just before."""
        self.until_steps(len(self.lines()) + more)
        self.until("running")

    def until(self, *states: str) -> JobView:
        view = self.client.wait(self.job, lambda v: v.state in (*states, *ENDED), BOUND_S)
        if view.state not in states:
            self.explain(f"is {view.state}, not {states}")
        return view

    def explain(self, what: str) -> bool:
        view = self.client.job(self.job)
        raise RuntimeError(f"{self.name} {what}: {view.failure} {view.reason} {self.log()[-800:]}")

    def other_node(self) -> str:
        return "b" if {rank.node for rank in self.client.job(self.job).ranks} == {"a"} else "a"

    def suspend(self, what: str = "suspend") -> JobView:
        return self.move(what, lambda: self.client.suspend(self.job), "suspended", more=0)

    def resume(self, what: str = "resume") -> JobView:
        return self.move(what, lambda: self.client.resume(self.job), "running")

    def migrate(self, what: str = "migrate") -> JobView:
        return self.move(what, lambda: self.client.migrate(self.job, self.other_node()), "running")

    def move(self, what: str, ask: Callable[[], object], *states: str, more: int = 5) -> JobView:
        """Ask for something at a random instant; say what it cost, to the first new line of the log."""
        time.sleep(random.uniform(0.1, 0.5))
        at, before, begun_s = len(self.lines()), len(self.client.job(self.job).moves), time.monotonic()
        ask()
        self.client.wait(self.job, lambda v: len(v.moves) > before or v.state in ENDED, BOUND_S)
        view = self.until(*states)
        done_s = time.monotonic() - begun_s
        if "running" in states:
            self.until_steps(at + more)
        moves = [
            {
                "kind": move.kind,
                "ok": move.ok,
                "message": move.message,
                "duration_s": round(move.duration_s, 3),
                "nbytes": move.nbytes,
                "steps": {s.step: [round(s.duration_s, 4), s.nbytes] for s in move.steps},
            }
            for move in view.moves[before:]
        ]
        nodes = sorted({rank.node for rank in view.ranks})
        whole_s = round(time.monotonic() - begun_s, 3)
        emit(
            "service.move", job=self.name, what=what, at_step=at, state=view.state, nodes=nodes,
            state_s=round(done_s, 3), until_more_steps_s=whole_s, device_used=device_used_bytes(),
            failure=view.failure, moves=moves,
        )  # fmt: skip
        return view


def device_used_bytes() -> int:
    if not CUDA:
        return 0
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True).stdout.split()[0]) << 20


def submit(
    client: FleetClient, name: str, node: str, ranks: int, *words: str, devices: int = 1, **more: str
) -> Run:
    env = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith("NVIDIA_")}
    env |= {"PYTHONFAULTHANDLER": "1", **more}
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"
    blob = client.upload(*pack(scan(JOBS)))
    command = ("torchrun", f"--nproc_per_node={ranks}", *words) if ranks > 1 else (sys.executable, *words)
    request = JobRequest(command, devices, ranks, name, env=env, workdir_blob=blob, node=node or None)
    view = client.submit(request)
    return Run(client, name, view.job_id, ranks)


def say_equal(name: str, run: Run, expected: Callable[[int], list[str]], against: str) -> None:
    for rank in range(run.ranks):
        got, wanted = run.lines(rank), expected(rank)
        first = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), None)
        equal = got == wanted and bool(got) and got[-1].startswith("weights")
        emit(
            "service.equal", job=name, rank=rank, against=against, lines=len(got), expected=len(wanted),
            equal=equal,
            first_difference=None if first is None else [got[first], wanted[first]],
        )  # fmt: skip


def run_plainly(words: list[str]) -> list[str]:
    """The same script with the same interpreter, without anything of ours."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "MIDSTEP"))}
    command = [sys.executable, *words]
    env |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=JOBS, env=env, capture_output=True, text=True, timeout=3 * BOUND_S)
    if done.returncode:
        emit("service.plain", error=done.stderr[-800:])
    return [line for line in done.stdout.split("\n") if line.startswith(("step ", "weights "))]
