"""A fleet under test: what tests and benchmarks use to drive a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from midstep.client.errors import ClientError
from midstep.client.fleet import FleetClient
from midstep.client.types import JobRequest, JobView
from midstep.client.workdir import pack, scan
from midstep.substrate.local.paths import StatePaths
from midstep.substrate.local.processes import Identity, load, wait_for
from midstep.substrate.local.teardown import leftovers

SOURCE = Path(__file__).parents[2] / "src"
WAIT_S = 90.0
ENDED = ("completed", "failed", "cancelled")


class Fleet:
    """A fleet under test: the client, the command line, and the processes behind them."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.paths = StatePaths.at(state)

    # the command line

    def cli(
        self, *words: str, cwd: Path | None = None, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run `midstep WORDS` as a user would."""
        return subprocess.run(
            [sys.executable, "-m", "midstep.cli", *words],
            env=self.environment,
            cwd=cwd,
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )

    def json(self, *words: str) -> Any:
        """The answer of a command that takes --json and succeeds."""
        done = self.cli(words[0], "--json", *words[1:])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def environment(self) -> dict[str, str]:
        """The user's, with this fleet as the default one and this interpreter as `python`."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "MIDSTEP_STATE": str(self.state), "PYTHONPATH": str(SOURCE), "PATH": path}

    def up(self, *words: str) -> None:
        """`midstep up`."""
        done = self.cli("up", *words)
        assert done.returncode == 0, done.stderr

    def down(self, *words: str) -> None:
        """`midstep down`."""
        done = self.cli("down", *words)
        assert done.returncode == 0, done.stderr

    # jobs

    def client(self, patience_s: float = 30.0) -> FleetClient:
        """A client of this fleet; waits for a controller that restarts."""
        return FleetClient.of_state(self.state, patience_s=patience_s)

    def run(self, *command: str, files: dict[str, str] | Path | None = None, **fields: Any) -> JobView:
        """Submit a command. ``files``: name -> content, or a folder; ``fields`` as in JobRequest."""
        env = {"PATH": self.environment["PATH"], "HOME": os.environ.get("HOME", "/"), **fields.pop("env", {})}
        with self.client() as client:
            blob = self._upload(client, files)
            return client.submit(JobRequest(command=command, env=env, workdir_blob=blob, **fields))

    def wait(self, job: JobView | str, *states: str, timeout_s: float = WAIT_S) -> JobView:
        """Until the job is in one of the states (none given: has ended); fails when it ended otherwise."""
        wanted = states or ENDED
        with self.client() as client:
            view = client.wait(_id(job), lambda j: j.state in wanted or j.state in ENDED, timeout_s)
            if view.state not in wanted:
                raise AssertionError(
                    f"{view.state}, not {wanted}: {view.failure} {view.reason}\n" + "\n".join(view.last_lines)
                )
            return view

    def logs(self, job: JobView | str, rank: int = 0) -> str:
        """All that a rank has printed."""
        with self.client() as client:
            return client.logs(_id(job), rank).text

    def until_logs(self, job: JobView | str, text: str, rank: int = 0, timeout_s: float = WAIT_S) -> str:
        """Wait until a rank has printed something; fails when the job ends before."""

        def there() -> bool:
            return text in self.logs(job, rank) or self.wait(job, "running", *ENDED).state in ENDED

        assert wait_for(there, timeout_s, every_s=0.05), f"{text!r} is not in:\n{self.logs(job, rank)}"
        assert text in self.logs(job, rank), (
            f"the job ended before it printed {text!r}:\n{self.logs(job, rank)}"
        )
        return self.logs(job, rank)

    def suspend(self, job: JobView | str) -> JobView:
        """Suspend and wait."""
        with self.client() as client:
            client.suspend(_id(job))
        return self.wait(job, "suspended")

    def resume(self, job: JobView | str) -> JobView:
        """Resume and wait until it runs."""
        with self.client() as client:
            client.resume(_id(job))
        return self.wait(job, "running", "completed")

    def migrate(self, job: JobView | str, to: str, *, copy_ahead: bool = False) -> JobView:
        """Migrate and wait until it runs there."""
        with self.client() as client:
            before = {move.started_s for move in client.job(_id(job)).moves}
            client.migrate(_id(job), to, copy_ahead)
            arrived = client.wait(_id(job), lambda j: _arrived(j, to, before), 2 * WAIT_S)
        assert arrived.state in ("running", "completed"), arrived
        return arrived

    def resize(self, job: JobView | str, devices: int, to: str | None = None) -> JobView:
        """Resize and wait until it runs on so many devices."""
        with self.client() as client:
            client.resize(_id(job), devices, to)
            view = client.wait(_id(job), lambda j: _has(j, devices), WAIT_S)
        assert view.state in ("running", "completed"), view
        return view

    def cancel(self, job: JobView | str) -> JobView:
        """Cancel and wait; a job that has ended stays as it is."""
        with self.client() as client:
            try:
                client.cancel(_id(job))
            except ClientError:
                pass
        return self.wait(job)

    # processes

    def process(self, name: str) -> Identity | None:
        """`supervisor`, `controller`, `agent-NODE` or `holder-NODE`, if it runs."""
        return load(self.paths.process(name))

    def until_restarted(self, name: str, before: Identity, timeout_s: float = 30.0) -> Identity:
        """Wait for the successor of a process."""
        assert wait_for(lambda: self.process(name) not in (None, before), timeout_s), (
            f"{name} was not restarted"
        )
        after = self.process(name)
        assert after is not None
        return after

    def until_connected(self, count: int = 4, timeout_s: float = 60.0) -> None:
        """Wait until that many nodes are connected."""
        with self.client(patience_s=timeout_s) as client:
            there = wait_for(
                lambda: sum(n.connected for n in client.nodes()) == count, timeout_s, every_s=0.1
            )
            assert there, client.nodes()

    @staticmethod
    def _upload(client: FleetClient, files: dict[str, str] | Path | None) -> str | None:
        if files is None:
            return None
        if isinstance(files, Path):
            archive, nbytes = pack(scan(files))
            with archive:
                return client.upload(archive, nbytes)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
            return Fleet._upload(client, Path(folder))


def _id(job: JobView | str) -> str:
    return job if isinstance(job, str) else job.job_id


def _has(job: JobView, devices: int) -> bool:
    if job.state in ENDED:
        return True
    assert job.devices_wanted == devices, f"not resized: {job.moves[-1]}"
    return job.state == "running" and job.devices_now == devices


def _arrived(job: JobView, to: str, moves_before: set[float]) -> bool:
    if job.state in ENDED:
        return True
    new = [m for m in job.moves if m.started_s not in moves_before and m.kind in ("migrate", "resume")]
    if job.state != "running" or not new:
        return False
    assert job.region == to or all(rank.node == to for rank in job.ranks), f"not at {to}: {job.moves[-1]}"
    return True


def assert_nothing_left(fleet: Fleet, shared_memory_before: set[str]) -> None:
    """No process, link, mount (in any namespace) or shared memory of this fleet is on the machine."""
    assert not leftovers(fleet.paths)
    state = str(fleet.paths.root)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            mounts = (folder / "mountinfo").read_text()
        except OSError:
            continue
        assert state not in words.split("\0"), f"process {folder.name} is left: {words}"
        assert f"{state}/" not in mounts, f"process {folder.name} still has mounts of the fleet"
    left = {name for name in os.listdir("/dev/shm") if "midstep" in name} - shared_memory_before
    assert not left, f"shared memory is left: {left}"


MakeFleet = Callable[..., Fleet]
