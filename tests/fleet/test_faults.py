"""What the machine lacks or refuses: no CRIU, a full disk, things that CRIU cannot carry. In each case the
user is told in words, nothing half-written stays, and the job goes on as if nothing had been."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from midstep.agent.install.criu_find import find_criu
from midstep.substrate.local.nodes import enter_command
from tests.fleet.harness import Fleet, MakeFleet

TRAIN = (Path(__file__).parent / "kinds" / "train.py").read_text()
LONG = TRAIN.replace("range(60)", "range(80)")

HOLDS = {
    "a device": ("handle = open('/dev/fuse', 'rb', buffering=0)", "has the device /dev/fuse open"),
    "an io_uring": (
        "import ctypes; handle = ctypes.CDLL(None).syscall(425, 4, (ctypes.c_char * 200)())",
        "has an io_uring open",
    ),
    "a socket to outside": (
        "import socket; handle = socket.socket(socket.AF_UNIX); handle.connect('\\0midstep-test')",
        "holds a connection over a unix socket to a program outside",
    ),
    "a namespace": ("import ctypes; ctypes.CDLL(None).unshare(0x04000000)", "has a uts namespace of its own"),
}
HOLDER = """
import os, sys, time
{hold}
for step in range(400):
    print("step", step, flush=True)
    time.sleep(0.02)
    if os.path.exists("/tmp/enough"):
        break
"""


def counted(text: str) -> int:
    """How many steps a job has printed: each once, in order."""
    lines = text.splitlines()
    assert lines == [f"step {i}" for i in range(len(lines))]
    return len(lines)


@pytest.mark.parametrize("what", HOLDS)
def test_a_dump_that_is_refused(fleet: Fleet, what: str) -> None:
    """Neither moved nor disturbed: the reason in words, no step lost or repeated, the vault as before."""
    hold, words = HOLDS[what]
    if what == "a device" and not Path("/dev/fuse").exists():
        pytest.skip("this machine has no /dev/fuse")
    listener = outside_listener(fleet) if what == "a socket to outside" else None
    script = HOLDER.format(hold=hold)
    job = fleet.run("python", "hold.py", files={"hold.py": script}, name="holder", node="north-1").job_id
    try:
        fleet.until_logs(job, "step 3\n")
        vault = fleet.paths.vault("north")
        before = sorted(vault.iterdir())
        for words_of in (("suspend", "holder"), ("migrate", "holder", "--to", "south", "--no-copy-ahead")):
            done = fleet.cli(*words_of)
            assert (done.returncode, words in done.stderr) == (5, True), done.stderr
            assert "Traceback" not in done.stderr
        view = fleet.json("show", "holder")
        assert (view["state"], view["ranks"][0]["node"]) == ("running", "north-1")
        assert [words in m["message"] for m in view["moves"] if m["kind"] != "reconnect"] == [True, True]
        at = counted(fleet.logs(job))
        fleet.until_logs(job, f"step {at + 3}\n")
        assert sorted(vault.iterdir()) == before
    finally:
        fleet.cancel(job)
        if listener is not None:
            listener.kill()
            listener.wait()
    counted(fleet.logs(job))


def outside_listener(fleet: Fleet) -> subprocess.Popen[bytes]:
    """A program on the job's node, but not of the job, that accepts a connection under an abstract name."""
    holder = fleet.process("holder-north-1")
    assert holder is not None
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0midstep-test'); s.listen();"
        " print(1, flush=True); c = s.accept(); s.accept()"
    )
    process = subprocess.Popen([*enter_command(holder), "python3", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.soak  # tests/agent has it without a whole fleet
def test_without_criu(own_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Frozen in place: said wherever one looks, exact, and a move is refused in words."""
    monkeypatch.setenv("MIDSTEP_CRIU_PREFIX", str(tmp_path / "empty"))
    monkeypatch.delenv("MIDSTEP_CRIU", raising=False)
    if find_criu() is not None:
        pytest.skip("this machine's own CRIU cannot be hidden")
    fleet = own_fleet("--regions", "2", "--nodes", "1", "--devices", "2")
    said = fleet.cli("up").stderr
    assert "jobs are frozen in place and cannot move; `midstep doctor --fix` installs it" in said
    assert all(node["freezes_in_place"] for node in fleet.json("nodes"))
    assert "in place" in fleet.cli("nodes").stdout
    job = fleet.run("python", "train.py", files={"train.py": LONG}, devices=2, region="north", name="train")
    fleet.until_logs(job, "step 3 ")
    for at in (10, 30):
        suspended = fleet.cli("suspend", "train")
        assert suspended.returncode == 0, suspended.stderr
        assert "in place" in fleet.cli("show", "train").stdout
        assert fleet.logs(job) == fleet.logs(job)
        refused = fleet.cli("migrate", "train", "--to", "south", "--no-copy-ahead")
        assert refused.returncode in (5, 6), refused
        assert "no CRIU" in refused.stderr, refused.stderr
        assert fleet.json("show", "train")["state"] == "suspended"
        assert fleet.cli("resume", "train").returncode == 0
        fleet.until_logs(job, f"step {at} ")
    refused = fleet.cli("migrate", "train", "--to", "south", "--no-copy-ahead")
    assert refused.returncode in (5, 6), refused
    assert "no CRIU" in refused.stderr, refused.stderr
    fleet.wait(job, "completed")
    assert fleet.logs(job) == undisturbed()
    fleet.down()


@functools.cache
def undisturbed() -> str:
    """What the long training prints without Midstep."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "train.py",
    ]
    env = {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.py").write_text(LONG)
        done = subprocess.run(
            torchrun, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=True
        )
    return done.stdout


@pytest.fixture
def small_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder in which the vault of south has 24 MB, less than any Python that has torch."""
    state = tmp_path_factory.mktemp("small")
    vault = state / "vaults" / "south"
    vault.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "small", vault], check=True)
    yield state
    subprocess.run(["umount", vault], check=True)
    shutil.rmtree(state)


@pytest.mark.soak  # tests/agent has it without a whole fleet
def test_a_full_disk(small_vault: Path) -> None:
    """A dump to it, and a migration to where it is: both undone; the job goes on to the same end. Afterwards
    the operator's own mount is still there."""
    fleet = Fleet(small_vault)
    vault = fleet.paths.vault("south")
    fleet.up("--regions", "2", "--nodes", "1", "--devices", "2")
    try:
        for region, words in (
            ("south", ("suspend", "south")),
            ("north", ("migrate", "north", "--to", "south", "--no-copy-ahead")),
        ):
            files = {"train.py": LONG}
            job = fleet.run("python", "train.py", files=files, devices=2, region=region, name=region)
            at = fleet.until_logs(job, "step 3 ").count("\n")
            done = fleet.cli(*words)
            assert done.returncode == 5, (words, done.stderr)
            assert "disk is full" in done.stderr or "disk of this node is full" in done.stderr, done.stderr
            assert "Errno" not in done.stderr
            assert not list((vault / "snapshots").iterdir())
            assert fleet.json("show", region)["region"] == region
            fleet.until_logs(job, f"step {at + 3} ")
            if region == "south":
                fleet.cancel(job)
        fleet.wait(job, "completed")
        assert fleet.logs(job) == undisturbed()
    finally:
        fleet.down("--now")
    assert vault.is_mount()
