"""The service on a GPU: jobs suspended, resumed and moved between nodes, each loss compared with an undisturbed run's.

usage: service.py [cuda|cpu] [PART ...]; JSON lines as they come. `cpu` rehearses all of it without a GPU.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from common import SCRATCH, emit, wait_for
from loopback import fleet

from midstep.client.fleet import FleetClient
from midstep.client.types import JobRequest, JobView
from midstep.client.workdir import pack, scan
from midstep.model.fleet import Device
from midstep.substrate.local.devices import gpu_devices, usable_cpus

JOBS = Path(__file__).resolve().parent / "jobs"
ENDED = ("completed", "failed", "cancelled")
CUDA = (sys.argv[1:] or ["cuda"])[0] == "cuda"
DEVICE = "cuda" if CUDA else "cpu"
ROOT = SCRATCH / "service"
BOUND_S = 90.0
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

    def until(self, *states: str) -> JobView:
        view = self.client.wait(self.job, lambda v: v.state in (*states, *ENDED), BOUND_S)
        if view.state not in states:
            self.explain(f"is {view.state}, not {states}")
        return view

    def explain(self, what: str) -> bool:
        view = self.client.job(self.job)
        raise RuntimeError(f"{self.name} {what}: {view.failure} {view.reason} {self.log()[-800:]}")

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
            state_s=round(done_s, 3), until_more_steps_s=whole_s, device_used=device_used_bytes(), moves=moves,
        )  # fmt: skip
        return view


def device_used_bytes() -> int:
    if not CUDA:
        return 0
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(query, capture_output=True, text=True).stdout.split()[0]) << 20


def submit(client: FleetClient, name: str, node: str, ranks: int, *words: str) -> Run:
    env = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith("NVIDIA_")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"
    blob = client.upload(*pack(scan(JOBS)))
    command = ("torchrun", f"--nproc_per_node={ranks}", *words) if ranks > 1 else (sys.executable, *words)
    request = JobRequest(command, 1, ranks, name, env=env, workdir_blob=blob, node=node or None)
    view = client.submit(request)
    return Run(client, name, view.job_id, ranks)


def say_equal(name: str, run: Run, expected: Callable[[int], list[str]], against: str) -> None:
    for rank in range(run.ranks):
        got, wanted = run.lines(rank), expected(rank)
        first = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), None)
        equal = got == wanted and bool(got) and got[-1].startswith("weights")
        emit(
            "service.equal", job=name, rank=rank, against=against, lines=len(got), expected=len(wanted), equal=equal,
            first_difference=None if first is None else [got[first], wanted[first]],
        )  # fmt: skip


def ddp(client: FleetClient) -> None:
    """Two ranks that share the GPU: suspended, resumed, moved to the other node, and back."""
    words = ("service_ddp.py", DEVICE, "600" if CUDA else "200", "256" if CUDA else "16")
    calm = submit(client, "ddp-calm", "c", 2, *words)
    run = submit(client, "ddp", "", 2, *words)
    run.until_steps(20)
    emit("service.running", job="ddp", nodes=[r.node for r in client.job(run.job).ranks], used=device_used_bytes())
    run.move("suspend", lambda: client.suspend(run.job), "suspended", more=0)
    run.move("resume", lambda: client.resume(run.job), "running")
    run.move("migrate", lambda: client.migrate(run.job, other(client, run)), "running")
    run.move("migrate back", lambda: client.migrate(run.job, other(client, run)), "running")
    calm.until("completed")
    run.until("completed")
    say_equal("ddp", run, calm.lines, "an undisturbed run under Midstep")


def other(client: FleetClient, run: Run) -> str:
    here = {rank.node for rank in client.job(run.job).ranks}
    return "b" if here == {"a"} else "a"


def loader(client: FleetClient) -> None:
    """One rank with forked workers; the first suspension is refused and undone, then it moves twice."""
    words = ["service_loader.py", DEVICE, "1000" if CUDA else "700", "256" if CUDA else "16"]
    plain: dict[int, list[str]] = {}
    thread = threading.Thread(target=lambda: plain.update({0: run_plainly([*words, "/dev/null"])}))
    thread.start()
    run = submit(client, "loader", "a", 1, *words, "let-go")
    run.until_steps(10)
    run.move("suspend, refused", lambda: client.suspend(run.job), "running", "suspended")
    let_go = ROOT / "a" / "jobs" / run.job / "home-0" / "work" / "let-go"
    let_go.touch()
    run.until_steps(len(run.lines()) + 5)
    if client.job(run.job).state == "running":
        run.move("suspend", lambda: client.suspend(run.job), "suspended", more=0)
    run.move("resume", lambda: client.resume(run.job), "running")
    run.move("migrate", lambda: client.migrate(run.job, other(client, run)), "running")
    run.until("completed")
    thread.join(BOUND_S)
    say_equal("loader", run, lambda rank: plain.get(rank, []), "plain python without Midstep")


def run_plainly(words: list[str]) -> list[str]:
    """The same script with the same interpreter, without anything of ours."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "MIDSTEP"))}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=JOBS, env={**env, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=3 * BOUND_S
    )
    if done.returncode:
        emit("service.plain", error=done.stderr[-800:])
    return [line for line in done.stdout.split("\n") if line.startswith(("step ", "weights "))]


PARTS = {"ddp": ddp, "loader": loader}


def main() -> None:
    wanted = sys.argv[2:] or list(PARTS)
    begun_s = time.monotonic()
    with fleet(ROOT, {name: device() for name in "abc"}) as client:
        emit("service.up", up_s=time.monotonic() - begun_s, devices=[d.device_type for d in device()])
        for name in wanted:
            begun_s = time.monotonic()
            try:
                PARTS[name](client)
            except Exception as error:
                emit("service.failed", part=name, error=f"{type(error).__name__}: {error}"[:3000])
                for log in sorted(ROOT.glob("*.log")):
                    emit("service.log", name=log.name, end=log.read_text(errors="replace")[-2500:])
            emit("service.part", part=name, duration_s=round(time.monotonic() - begun_s, 1))
    shutil.rmtree(ROOT, ignore_errors=True)


if __name__ == "__main__":
    main()
