"""Our processes are killed at random moments while jobs are suspended, resumed and migrated. Then
all comes together again: every job ends with what it prints undisturbed, so none ran twice.

SEED in the environment repeats the choices (not the moments).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from midstep.client.errors import ClientError
from midstep.substrate.local.nodes import inhabitants
from midstep.substrate.local.processes import Identity, send
from tests.fleet.harness import ENDED, Fleet, MakeFleet

SUMS = (Path(__file__).parent / "kinds" / "sums.py").read_text()
COUNT = "import time\nfor i in range(10**6): print(i, flush=True); time.sleep(0.02)\n"
SEED = int(os.environ.get("SEED", time.time_ns() % 100_000))
NODES = ("north-1", "north-2", "south-1", "south-2")
VICTIMS = ("supervisor", "controller", "agent", "agent", "proxy", "proxy")
SETTLED = ("running", "suspended", *ENDED)


def victims(fleet: Fleet, kind: str) -> list[Identity]:
    """The processes of a kind that live now."""
    if kind == "proxy":
        return [i.identity for i in inhabitants(fleet.paths) if is_proxy(i.identity.pid)]
    names = [kind] if kind in ("supervisor", "controller") else [f"{kind}-{node}" for node in NODES]
    return [identity for name in names if (identity := fleet.process(name)) is not None]


def is_proxy(pid: int) -> bool:
    """A proxy, or what proxies are forked from."""
    try:
        return b"midstep.proxy" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@contextmanager
def killer(fleet: Fleet, chance: Random, pause_s: tuple[float, float]) -> Iterator[list[str]]:
    """Kills somebody again and again, until the block ends; the list says whom."""
    killed: list[str] = []
    enough = threading.Event()

    def work() -> None:
        while not enough.wait(chance.uniform(*pause_s)):
            kind = chance.choice(VICTIMS)
            if found := victims(fleet, kind):
                send(chance.choice(found), signal.SIGKILL)
                killed.append(kind)
            if fleet.process("supervisor") is None:
                fleet.up()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield killed
    finally:
        enough.set()
        thread.join()


def ask_for_something(fleet: Fleet, job: str, chance: Random) -> None:
    """A random request. Refusals are right: it may be under way, or nobody may be there to hear it."""
    with suppress(ClientError), fleet.client(patience_s=0) as client:
        state, region = client.job(job).state, client.job(job).region
        if state == "suspended":
            client.resume(job)
        elif chance.random() < 0.5:
            client.suspend(job)
        else:
            client.migrate(job, "south" if region == "north" else "north")


def settle(fleet: Fleet, jobs: list[str]) -> None:
    """Until every job runs or has ended."""
    fleet.up()
    fleet.until_connected()
    for job in jobs:
        if fleet.wait(job, *SETTLED, timeout_s=180).state == "suspended":
            with fleet.client() as client:
                client.resume(job)
        fleet.wait(job, "running", "completed", timeout_s=180)


def storm(fleet: Fleet, kills: int, steps: int) -> None:
    """Jobs, requests and kills; then the proof."""
    chance = Random(SEED)
    files = {"job.py": SUMS.replace("range(60)", f"range({steps})")}
    train = fleet.run("python", "job.py", files=files, devices=3).job_id
    count = fleet.run("python", "-c", COUNT).job_id
    fleet.until_logs(train, "step 1 ")
    with killer(fleet, chance, (0.3, 1.5)) as killed:
        while len(killed) < kills:
            time.sleep(chance.uniform(0.1, 0.8))
            ask_for_something(fleet, chance.choice((train, count)), chance)
    settle(fleet, [train, count])
    fleet.wait(train, "completed", timeout_s=600)
    calm = fleet.run("python", "job.py", files=files, devices=3)
    fleet.wait(calm, "completed", timeout_s=600)
    assert fleet.logs(train) == fleet.logs(calm), f"SEED={SEED}, killed {killed}"
    fleet.cancel(count)
    lines = fleet.logs(count).splitlines()
    assert lines == [str(i) for i in range(len(lines))], f"SEED={SEED}, killed {killed}"
    ranks = [i for i in inhabitants(fleet.paths) if b"job.py" in cmdline(i.identity.pid)]
    assert not ranks


def cmdline(pid: int) -> bytes:
    """Empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.soak
def test_a_few_kills(own_fleet: MakeFleet) -> None:
    storm(own_fleet("--regions", "2", "--nodes", "2", "--devices", "2"), kills=6, steps=150)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_kills(own_fleet: MakeFleet) -> None:
    storm(own_fleet("--regions", "2", "--nodes", "2", "--devices", "2"), kills=100, steps=2000)
