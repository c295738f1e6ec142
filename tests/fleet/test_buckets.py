"""Regions whose archives are in a bucket: jobs go on from there, on any node, in any region, bit for bit.

Buys: the archiver, the agents and the controller over S3's protocol and Azure's, with credentials and
addresses as they have them in their own namespaces. `make soak` has it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from midstep.substrate.local.plan import PLAN
from midstep.substrate.local.processes import wait_for
from midstep.vault.snapshots import Snapshots
from tests.fleet.harness import Fleet, MakeFleet
from tests.vault.backends import azurite_server, moto_server

LOSSES = (Path(__file__).parent / "kinds" / "losses.py").read_text()
WITH_ENV = "import os\nprint(sorted(k for k in os.environ if 'AWS' in k or 'AZURE' in k))"
FILES = {"job.py": LOSSES, "with_env.py": WITH_ENV}
STEPS, PACE_S = "120", "0.1"


def vault_of(fleet: Fleet, region: str) -> Snapshots:
    """It reads where the archive is anew."""
    return Snapshots(fleet.paths.vault(region))


def archived(fleet: Fleet, region: str, job_id: str) -> list[str]:
    archive = vault_of(fleet, region).archive()
    return archive.snapshot_ids(job_id) if archive is not None else []


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cloud", ["s3", "azure"])
def test_jobs_go_on_from_a_bucket(own_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, cloud: str) -> None:
    store = moto_server if cloud == "s3" else azurite_server
    for name, value in store.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    fleet = own_fleet("--regions", "2", "--nodes", "2", "--devices", "1", "--checkpoint-every", "off")
    host = PLAN.validate_json(fleet.paths.fleet.read_bytes()).host
    with store.server(host) as port:
        for region in ("north", "south"):
            url = store.url(f"http://{host}:{port}", region)
            (fleet.paths.vault(region) / "archive.json").write_text(json.dumps({"url": url}))
        _suspended_resumed_and_moved(fleet)
        fleet.down("--now")


def _suspended_resumed_and_moved(fleet: Fleet) -> None:
    calm = fleet.run("python", "job.py", STEPS, "0", files=FILES, devices=2)
    fleet.wait(calm, "completed")
    job = fleet.run("python", "job.py", STEPS, PACE_S, files=FILES, devices=2, region="north")
    fleet.until_logs(job, "step 5 ")
    snapshot_id = fleet.suspend(job).snapshot
    assert wait_for(lambda: archived(fleet, "north", job.job_id) == [snapshot_id], 90, every_s=0.5)
    vault = vault_of(fleet, "north")
    vault.delete(snapshot_id)
    assert vault.ids() == [] and not (vault.root / "archive").exists(), "there is nothing but the bucket"
    fleet.resume(job)
    fleet.until_logs(job, "step 40 ")
    fleet.migrate(job, "south")  # from one part of the bucket to another
    assert archived(fleet, "south", job.job_id)
    for words in (("ls",), ("du",), ("check", "--deep"), ("gc", "--dry-run")):
        done = fleet.cli("vault", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    fleet.wait(job, "completed", timeout_s=240)
    assert [fleet.logs(job, rank) for rank in (0, 1)] == [fleet.logs(calm, rank) for rank in (0, 1)]
    for region in ("north", "south"):
        assert wait_for(lambda it=region: archived(fleet, it, job.job_id) == [], 90, every_s=0.5)
    blind = fleet.run("python", "with_env.py", files=FILES)
    fleet.wait(blind, "completed")
    assert fleet.logs(blind) == "[]\n", "no job is given the credentials"
