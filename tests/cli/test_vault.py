"""`midstep vault ...` over the folders of a fleet that is down, and over an archive by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import SOURCE, contents, flip, objects, store, write_raw


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Region north has j-1 and j-2 archived, and j-3 not yet; south has nothing."""
    state = tmp_path / "state"
    vault = Snapshots(_made(state / "vaults" / "north"))
    _made(state / "vaults" / "south")
    (state / "fleet.json").write_text("{}")
    archive = vault.archive(create=True)
    assert archive is not None
    for number in (1, 2, 3):
        write_raw(vault, f"j-{number}", number, ranks=1, mib=1)
        if number < 3:
            store(vault, archive, f"j-{number}")
    return state


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def midstep(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "midstep.cli", "vault", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "MIDSTEP_STATE": str(state)},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def answer(state: Path, *words: str) -> Any:
    done = midstep(state, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_list_and_measure(state: Path) -> None:
    rows = answer(state, "ls")
    assert [(r["snapshot"], r["region"], r["archived"]) for r in rows] == [
        ("j-1", "north", True),
        ("j-2", "north", True),
        ("j-3", "north", False),
    ]
    assert answer(state, "ls", "--job", "other") == answer(state, "ls", "--region", "south") == []
    used = answer(state, "du")["north"]
    assert used["dead_bytes"] == answer(state, "gc", "--dry-run")[0]["plan"]["dead_bytes"] == 0
    (job,) = used["jobs"]
    assert job["snapshots"] == 2 and job["nbytes"] == rows[0]["nbytes"] + rows[1]["nbytes"]
    shown = midstep(state, "ls").stdout.splitlines()
    assert shown[0].split()[:2] == ["SNAPSHOT", "REGION"] and shown[3].endswith("not yet")


def test_copy_remove_and_collect(state: Path, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    assert answer(state, "cp", "j-2", other)["sent_bytes"] > 500_000
    assert answer(state, "cp", "j-2", other)["again"]
    assert [r["snapshot"] for r in answer(state, "ls", "--vault", other)] == ["j-2"]
    assert answer(state, "rm", "j-1")["region"] == "north"
    (dry,) = answer(state, "gc", "--dry-run")
    assert answer(state, "du")["north"]["dead_bytes"] == dry["plan"]["dead_bytes"] > 500_000
    assert dry["plan"]["freed_bytes"] > 500_000 and "done" not in dry
    (wet,) = answer(state, "gc")
    assert wet["done"]["freed_bytes"] == dry["plan"]["freed_bytes"]
    assert answer(state, "check", "--deep") == []
    assert midstep(state, "check").returncode == 0
    assert answer(state, "rm", "j-2", "--force")["removed"] == "j-2"
    assert [row["snapshot"] for row in answer(state, "ls") if row["archived"]] == []


def test_damage_is_named_and_mended(state: Path) -> None:
    vault = Snapshots(state / "vaults" / "north")
    pack = max(objects(vault.root / "archive" / "packs"), key=lambda path: path.stat().st_size)
    flip(pack, 1000)
    assert midstep(state, "check").returncode == 0, "sizes are as they were"
    done = midstep(state, "check", "--deep")
    name = str(pack.relative_to(vault.root / "archive"))
    assert done.returncode == 10 and name in done.stdout and "cannot be restored: j-" in done.stderr
    hurt = done.stderr.split("cannot be restored: ")[1].split(";")[0].split()[0]
    assert midstep(state, "cp", hurt, str(state / "other")).returncode == 10
    done = midstep(state, "check", "--mend")
    assert f"{name} is replaced; 1 chunks" in done.stderr and done.returncode == 10
    archive = vault.archive()
    assert archive is not None
    archive.forget(hurt)
    store(vault, archive, hurt)
    assert midstep(state, "check", "--deep").returncode == 0
    vault.delete(hurt)
    vault.materialise(hurt)
    assert "rank-0/pages-1.img" in contents(vault.path(hurt))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("ls", "--vault", "/nothing/there"), 4, "there is no vault at /nothing/there"),
        (("ls", "--vault", "ftp://x/y"), 2, "is no vault"),
        (("ls", "--region", "west"), 2, "there are north, south"),
        (("rm", "j-9"), 4, "is in no archive"),
        (("cp", "j-3", "/tmp/never"), 4, "j-3 is not archived yet"),
        (("cp", "j-4", "/tmp/never"), 4, "is in no archive"),
        (("cp", "j-1", "ftp://x/y"), 2, "TO_URL: ftp://x/y is no vault"),
        (("rm", "j-2"), 2, "j-2 is the newest snapshot of job j in north"),
        (("ls", "--key-file", "/nothing", "--vault", "{north}"), 6, "cannot read the vault's key"),
    ],
)
def test_errors_say_what_to_do(state: Path, words: tuple[str, ...], code: int, says: str) -> None:
    north = str(state / "vaults" / "north" / "archive")
    done = midstep(state, *(word.replace("{north}", north) for word in words))
    assert (done.returncode, done.stdout) == (code, "") and says in done.stderr, done.stderr
    answered = midstep(state, *(word.replace("{north}", north) for word in words), "--json")
    assert json.loads(answered.stderr)["exit"] == code


def test_settings_that_name_no_place_are_named(state: Path) -> None:
    (state / "vaults" / "south" / "archive.json").write_text('{"url": "ftp://x/y"}')
    done = midstep(state, "ls")
    assert done.returncode == 4 and "south/archive.json: ftp://x/y is no vault" in done.stderr, done.stderr


def test_another_version_is_refused(state: Path) -> None:
    (state / "vaults" / "north" / "archive" / "format").write_bytes(b"midstep vault, format 2\n")
    done = midstep(state, "ls")
    assert (
        done.returncode == 6 and "format 2" in done.stderr and "use the Midstep that wrote it" in done.stderr
    )


def test_no_fleet(tmp_path: Path) -> None:
    done = midstep(tmp_path / "none", "check")
    assert done.returncode == 2 and "--vault URL" in done.stderr
