"""An embedded fleet for a benchmark, and running jobs on it through the client, as a user's script would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from benchmarks.registry import Skip
from midstep.agent.install.criu_find import find_criu
from midstep.client.fleet import FleetClient
from midstep.client.types import JobRequest, JobView
from midstep.client.workdir import pack, scan

ENDED = ("completed", "failed", "cancelled")
JOBS = Path(__file__).parent / "jobs"
BOUND_S = 300.0


@contextmanager
def memory_folder(path: Path) -> Generator[None]:
    """A file system in memory at ``path``: where not the disk is measured, but what we do beside it."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "midstep-bench", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=False)


@contextmanager
def fleet(
    regions: int = 1,
    nodes: int = 1,
    devices: int = 2,
    *,
    vaults_in_memory: bool = False,
    state: Path | None = None,
) -> Generator[FleetClient]:
    """`midstep up` in a temporary state folder, or this one; at the end `down`, and nothing of it is left."""
    if os.geteuid() != 0:
        raise Skip("virtual nodes need root")
    if find_criu() is None:
        raise Skip("no CRIU 4.1 here: `midstep doctor --fix`")
    state = state or Path(tempfile.mkdtemp(prefix="midstep-bench-"))
    shape = ("--regions", str(regions), "--nodes", str(nodes), "--devices", str(devices))
    try:
        with memory_folder(state / "vaults") if vaults_in_memory else nullcontext():
            try:
                _midstep("up", *shape, "--state", str(state))
                with FleetClient.of_state(state) as client:
                    yield client
            finally:
                _midstep("down", "--now", "--state", str(state))
    finally:
        shutil.rmtree(state, ignore_errors=True)


def submit(
    client: FleetClient, script: str, *arguments: str, ranks: int, folder: Path = JOBS, **fields: object
) -> JobView:
    """One of `benchmarks/jobs/`, or another folder, as `torchrun --nproc_per_node=RANKS script arguments`."""
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"
    blob = client.upload(*pack(scan(folder)))
    command = ("torchrun", f"--nproc_per_node={ranks}", script, *arguments)
    return client.submit(JobRequest(command=command, env=env, workdir_blob=blob, **fields))  # pyright: ignore[reportArgumentType]


def wait(client: FleetClient, job: JobView, *states: str) -> JobView:
    """Until it is in one of the states; RuntimeError when it ends otherwise."""
    view = client.wait(job.job_id, lambda v: v.state in (*states, *ENDED), BOUND_S)
    if view.state not in states:
        raise RuntimeError(f"{view.job_id} is {view.state}: {view.failure}\n" + "\n".join(view.last_lines))
    return view


def log(client: FleetClient, job: JobView, rank: int = 0) -> str:
    """All that a rank has printed."""
    text, offset = "", 0
    while (piece := client.logs(job.job_id, rank, offset)).next_offset > offset:
        text, offset = text + piece.text, piece.next_offset
    return text


def torchrun(script: str, *arguments: str, ranks: int, cwd: Path = JOBS) -> str:
    """The rival: plain torchrun with gloo; what it printed. gloo itself aborts now and then, when the other
    rank has left a moment before; then it is run again."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    for _ in range(3):
        done = subprocess.run(
            [*launcher, script, *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        if "Signal 6 (SIGABRT)" not in done.stderr:
            break
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def _midstep(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "midstep.cli", *words], check=words[0] == "up", stdout=sys.stderr)
