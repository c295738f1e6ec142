"""`midstep up` and `down` on the real machine: what is there, what is not visible, what is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from midstep.substrate.local.network import UNFINISHED, own_links
from midstep.substrate.local.nodes import enter_command, inhabitants
from midstep.substrate.local.processes import Identity, send, wait_for
from midstep.substrate.local.teardown import alias, leftovers
from tests.fleet.harness import Fleet, MakeFleet


def inside(fleet: Fleet, node: str, script: str) -> str:
    """What a shell inside a node prints."""
    holder = fleet.process(f"holder-{node}")
    assert holder is not None
    return subprocess.run(
        [*enter_command(holder), "sh", "-c", script], capture_output=True, text=True, check=True
    ).stdout


def test_nodes_are_apart(fleet: Fleet) -> None:
    names = sorted(node["name"] for node in fleet.json("nodes"))
    assert names == ["north-1", "north-2", "south-1", "south-2"]
    assert inside(fleet, "south-2", "hostname").strip() == "south-2"
    everywhere = "ls /run/midstep/node /run/midstep/vault /dev/shm"
    inside(fleet, "north-1", "touch /run/midstep/node/mine /run/midstep/vault/shared /dev/shm/fast")
    assert {"mine", "shared", "fast"} <= set(inside(fleet, "north-1", everywhere).split())
    assert {"mine", "shared", "fast"} & set(inside(fleet, "north-2", everywhere).split()) == {"shared"}
    assert {"mine", "shared", "fast"} & set(inside(fleet, "south-1", everywhere).split()) == set()
    assert inside(fleet, "north-1", f"ls {fleet.state}") == ""  # all nodes' files, and the token
    inside(fleet, "north-1", "rm /run/midstep/node/mine /run/midstep/vault/shared /dev/shm/fast")


def test_nodes_reach_each_other_by_name(fleet: Fleet) -> None:
    hosts = inside(fleet, "north-1", "cat /etc/hosts")
    addresses = {node["name"]: node["address"] for node in fleet.json("nodes")}
    assert len(set(addresses.values())) == 4
    assert all(f"{address}\t{name}" in hosts for name, address in addresses.items())


def test_up_again_changes_nothing(fleet: Fleet) -> None:
    before = {i.identity for i in inhabitants(fleet.paths)}
    fleet.up()
    assert {i.identity for i in inhabitants(fleet.paths)} == before
    refused = fleet.cli("up", "--nodes", "3")
    assert refused.returncode == 5
    assert "2 regions x 2 nodes x 2 devices, not 2 regions x 3 nodes" in refused.stderr


def test_two_fleets_side_by_side(fleet: Fleet, own_fleet: MakeFleet) -> None:
    other = own_fleet("--regions", "1", "--nodes", "1", "--devices", "1", "--name", "other")
    assert [n["name"] for n in other.json("nodes")] == ["north-1"]
    assert len(fleet.json("nodes")) == 4
    assert {n["address"] for n in other.json("nodes")} & {n["address"] for n in fleet.json("nodes")} == set()
    other.down()
    assert not leftovers(other.paths)
    fleet.until_connected()
    stopped = other.cli("ps")
    assert (stopped.returncode, "is not running" in stopped.stderr) == (3, True)


@pytest.mark.parametrize("name", ["supervisor", "controller", "agent-north-1", "holder-south-1"])
def test_whatever_is_killed_comes_back_once(fleet: Fleet, name: str) -> None:
    before = fleet.process(name)
    assert before is not None
    others = {
        n: fleet.process(n)
        for n in ("controller", "agent-north-1", "agent-north-2", "holder-south-1")
        if n != name
    }
    send(before, signal.SIGKILL)
    if name == "supervisor":
        assert wait_for(lambda: not before.alive, 10)
        fleet.up()
    fleet.until_restarted(name, before)
    fleet.until_connected()
    assert {n: fleet.process(n) for n in others} == others  # nobody else was restarted
    agents = [i.node for i in inhabitants(fleet.paths) if is_agent(i.identity)]
    assert sorted(agents) == ["north-1", "north-2", "south-1", "south-2"]


def test_a_network_that_was_taken_away_comes_back(fleet: Fleet) -> None:
    links = own_links(alias(fleet.paths))
    for name in (links[0], links[-1]):  # a cable, and the bridge
        subprocess.run(["ip", "link", "del", name], check=True)
    assert wait_for(lambda: sorted(own_links(alias(fleet.paths))) == sorted(links), 20)
    fleet.until_connected()


def test_a_cable_whose_far_end_was_never_set_up(fleet: Fleet) -> None:
    cable = next(name for name in own_links(alias(fleet.paths)) if name.endswith("-0"))  # the first node's
    holder = fleet.process("holder-north-1")
    assert holder is not None
    subprocess.run(["nsenter", "-t", str(holder.pid), "-n", "ip", "link", "set", "eth0", "down"], check=True)
    subprocess.run(["ip", "link", "set", cable, "alias", alias(fleet.paths) + UNFINISHED], check=True)
    assert wait_for(lambda: cable in own_links(alias(fleet.paths), finished=True), 20)
    assert "default" in inside(fleet, "north-1", "ip route")
    fleet.until_connected()


@pytest.mark.parametrize(
    "after_s", [0.5, *(pytest.param(after_s, marks=pytest.mark.soak) for after_s in (0.2, 1.0))]
)
def test_up_killed_on_its_way_and_again(own_fleet: MakeFleet, tmp_path: Path, after_s: float) -> None:
    fleet = Fleet(tmp_path / "state")
    argv = [sys.executable, "-m", "midstep.cli", "up", "--regions", "1", "--devices", "1"]
    process = subprocess.Popen(argv, env=fleet.environment, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    process.kill()
    process.wait()
    if (supervisor := fleet.process("supervisor")) is not None:
        send(supervisor, signal.SIGKILL)
    fleet.up("--regions", "1", "--devices", "1")
    fleet.until_connected(2)
    assert sorted(i.node for i in inhabitants(fleet.paths) if is_agent(i.identity)) == ["north-1", "north-2"]
    fleet.down("--purge")
    assert not leftovers(fleet.paths)


def test_in_the_foreground(own_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "state")
    argv = [sys.executable, "-m", "midstep.cli", "up", "--foreground", "--regions", "1", "--nodes", "1"]
    process = subprocess.Popen(argv, env=fleet.environment, text=True, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert any("up. Next" in line for line in process.stderr)
    fleet.until_connected(1)
    assert fleet.cli("up", "--foreground").returncode == 5
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not leftovers(fleet.paths)


def is_agent(identity: Identity) -> bool:
    """The agent itself, not what it forked: those have the same command line, and an agent as parent."""
    words = Path(f"/proc/{identity.pid}/cmdline").read_bytes().split(b"\0")
    parent = Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2].split()[1]
    above = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    return b"midstep.app.agent" in words and b"midstep.app.agent" not in above


def test_down_after_everything_was_killed(own_fleet: MakeFleet) -> None:
    fleet = own_fleet("--regions", "1", "--nodes", "2", "--devices", "1")
    names = ["supervisor", "controller", "agent-north-1", "holder-north-1"]
    for identity in [fleet.process(name) for name in names]:
        assert identity is not None
        send(identity, signal.SIGKILL)
    shutil.rmtree(fleet.paths.run)  # and all process files lost
    fleet.down("--now")
    assert not leftovers(fleet.paths)
    again = fleet.cli("down")
    assert again.returncode == 0
    assert "nothing was running" in again.stderr


def test_purge_removes_the_folder_and_only_a_fleets(own_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = own_fleet("--regions", "1", "--nodes", "1", "--devices", "1")
    fleet.down("--purge")
    assert not fleet.state.exists()
    fleet.state.mkdir()
    (tmp_path / "precious").write_text("mine")
    refused = fleet.cli("down", "--purge", "--state", str(tmp_path))
    assert refused.returncode == 5
    assert os.listdir(tmp_path).count("precious") == 1
    assert fleet.cli("up", "--state", str(tmp_path)).returncode == 5
