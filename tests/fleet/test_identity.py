"""After a migration nothing of a job's communication uses the name, the address or a process of where it was.

Every virtual node has its own host name and address. A job of four ranks on both nodes of north moves to
south, and north's cables are pulled: whatever still led there would stop.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from midstep.substrate.local.bringup import read_plan
from midstep.substrate.local.nodes import enter_command, inhabitants
from tests.fleet.harness import Fleet

SUMS = Path(__file__).parent / "kinds" / "sums.py"
SLOWER = SUMS.read_text().replace("sleep(0.03)", "sleep(0.06)")  # it is looked at while it runs
WITH_NAMES = SLOWER.replace(
    'print("step"', 'print("on", __import__("socket").gethostname(), flush=True), print("step"'
)
NORTH = ("north-1", "north-2")


@contextmanager
def cables_pulled(fleet: Fleet, nodes: tuple[str, ...]) -> Iterator[None]:
    """The links of these nodes are down meanwhile."""
    plan = read_plan(fleet.paths)
    assert plan is not None
    cables = [plan.node(name).veth for name in nodes]
    try:
        for cable in cables:
            subprocess.run(["ip", "link", "set", cable, "down"], check=True)
        yield
    finally:
        for cable in cables:
            subprocess.run(["ip", "link", "set", cable, "up"], check=True)
        fleet.until_connected()


def test_nothing_leads_back(fleet: Fleet) -> None:
    addresses = {node["name"]: node["address"] for node in fleet.json("nodes")}
    job = fleet.run("python", "job.py", files={"job.py": WITH_NAMES}, devices=4, region="north").job_id
    fleet.until_logs(job, "step 5 ")
    fleet.migrate(job, "south")
    with cables_pulled(fleet, NORTH):
        at = fleet.until_logs(job, "on south-1").count("step ")
        fleet.until_logs(job, f"step {at + 5} ")
        old = [word for name in NORTH for word in (name, addresses[name])]
        communication = list(traces(fleet, job))
        assert len(communication) > 8
        for where, content in communication:
            assert not [word for word in old if word.encode() in content], where
        fleet.wait(job, "completed")
    lines = fleet.logs(job).splitlines()
    names = [line.split()[1] for line in lines if line.startswith("on ")]
    assert names == sorted(names) and set(names) == {"north-1", "south-1"}
    calm = fleet.run("python", "job.py", files={"job.py": SUMS.read_text()}, devices=4, region="south")
    fleet.wait(calm, "completed")
    assert [line for line in lines if line.startswith("step")] == fleet.logs(calm).splitlines()


def traces(fleet: Fleet, job: str) -> Iterator[tuple[str, bytes]]:
    """All that a job's processes in south could reach others by: environments, mailboxes, connections, the
    store."""
    for inhabitant in inhabitants(fleet.paths):
        proc = Path(f"/proc/{inhabitant.identity.pid}")
        if not inhabitant.node.startswith("south"):
            continue
        if b"job.py" in (proc / "cmdline").read_bytes():
            yield f"environment of {proc.name} in {inhabitant.node}", (proc / "environ").read_bytes()
        for descriptor in (proc / "fd").iterdir():
            if "midstep-mailbox" in str(descriptor.readlink()):
                yield f"mailbox {descriptor}", descriptor.read_bytes()
    for node in ("south-1", "south-2"):
        holder = fleet.process(f"holder-{node}")
        assert holder is not None
        command = [*enter_command(holder), "ss", "-tuanx"]
        sockets = subprocess.run(command, capture_output=True, check=True).stdout
        assert b"ESTAB" in sockets
        yield f"sockets of {node}", sockets
        for path in (fleet.paths.node(node) / "jobs").rglob("*"):
            if job in str(path) and "home-" not in str(path) and path.is_file():
                yield f"file {path}", path.read_bytes()
