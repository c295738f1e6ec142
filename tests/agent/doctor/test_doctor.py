"""The doctor: judgements on given facts, and one real examination of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from midstep.agent.doctor import Finding, Mode, Status, decide, examine, judge_mode
from midstep.agent.doctor.finding import Tried, attempt
from midstep.agent.doctor.host import CAPABILITIES, GIB, judge_disk, judge_kernel, judge_rights
from midstep.agent.doctor.namespaces import judge_namespace, judge_network
from midstep.agent.doctor.software import judge_criu, judge_criu_check, judge_gpus, judge_torch
from midstep.agent.drivers.cuda import CudaSupport
from midstep.agent.install.criu_find import CriuInfo, check_criu, find_criu, read_version, wanted_version

PYTHON = Path("/usr/bin/python3")
ALL_CAPABILITIES = sum(1 << bit for bit in CAPABILITIES.values())


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("6.18.44-1", Status.OK),
        ("5.16", Status.OK),
        ("5.15.0-91-generic", Status.BAD),
        ("4.19.0", Status.BAD),
    ],
)
def test_kernels(release: str, status: Status) -> None:
    assert judge_kernel(release).status is status


def test_lacking_rights_are_named() -> None:
    assert judge_rights(0, ALL_CAPABILITIES).status is Status.OK
    row = judge_rights(1000, ALL_CAPABILITIES & ~(1 << CAPABILITIES["CAP_SYS_PTRACE"]))
    assert (row.status, row.found) == (Status.BAD, "user 1000 without CAP_SYS_PTRACE")
    assert "--privileged" in row.todo


def test_disk() -> None:
    free = [judge_disk(Path("/s"), size).status for size in (20 * GIB, 5 * GIB, GIB // 2)]
    assert free == [Status.OK, Status.WARN, Status.BAD]


def test_criu() -> None:
    new = CriuInfo(Path("/p/criu"), (4, 2, 1), private=True)
    old = CriuInfo(Path("/usr/sbin/criu"), (3, 17, 1), private=False)
    rows = [judge_criu(new), judge_criu(old), judge_criu(None)]
    assert [row.status for row in rows] == [Status.OK, Status.BAD, Status.BAD]
    assert all("midstep doctor --fix" in row.todo for row in rows[1:])
    assert judge_criu_check(new, "").status is Status.OK
    assert judge_criu_check(new, "no pagemap").found == "no pagemap"
    assert judge_criu_check(old, "").status is Status.BAD


def test_torch() -> None:
    answers = [
        '["3.11.7", "2.13.0+cpu", ""]',
        'a warning\n["3.12.1", "2.4.1", "12.4"]',
        '["3.9.0", "2.3.1", ""]',
    ]
    rows = [judge_torch(PYTHON, Tried(True, words)) for words in answers]
    assert [row.status for row in rows] == [Status.OK, Status.OK, Status.BAD]
    assert "for CUDA 12.4" in rows[1].found
    assert judge_torch(PYTHON, Tried(False, "No module named 'torch'")).status is Status.WARN


def test_gpus() -> None:
    listed = Tried(True, "NVIDIA H100, 81559, 580.1\nNVIDIA H100, 81559, 580.1")
    rows = judge_gpus(listed, lambda: CudaSupport(True, "580.1", ""))
    assert [row.key for row in rows] == ["gpu-0", "gpu-1", "gpu-checkpoint"]
    assert rows[0].found == "NVIDIA H100, 80 GiB, driver 580.1"
    (*_, old) = judge_gpus(listed, lambda: CudaSupport(False, "550", "no process checkpoint"))
    assert (old.status, old.found) == (Status.WARN, "no process checkpoint")
    (none,) = judge_gpus(Tried(False, "nvidia-smi is not installed"), pytest.fail)
    assert none.status is Status.OK


def test_namespaces_and_network() -> None:
    assert judge_namespace("time", Tried(True, "")).status is Status.OK
    assert "privileged" in judge_namespace("time", Tried(False, "Operation not permitted")).todo
    assert "util-linux" in judge_namespace("pid", Tried(False, "unshare is not installed")).todo
    assert "iproute2" in judge_network(Tried(False, "ip is not installed"), Tried(False, "")).todo
    assert (
        judge_network(Tried(True, "ip utility, iproute2-6.1.0, libbpf"), Tried(True, "")).found
        == "yes, iproute2-6.1.0"
    )


def test_the_mode_follows_from_the_rows_and_says_why() -> None:
    good = Finding("criu", "CRIU", "4.1", Status.OK)
    assert decide([good]) is Mode.CRIU
    bad = [
        good,
        Finding("rights", "rights", "user 1", Status.BAD),
        Finding("torch", "torch", "none", Status.BAD),
    ]
    assert decide(bad) is Mode.FREEZE
    row = judge_mode(bad)
    assert (row.status, row.todo) == (Status.WARN, "see: rights")
    assert "freeze in place" in row.found


def test_this_machine_is_examined() -> None:
    rows = examine(Path(sys.executable))
    keys = [row.key for row in rows]
    assert len(keys) == len(set(keys))
    assert keys[-1] == "mode"
    assert all(row.todo for row in rows if row.status is not Status.OK)
    torch = next(row for row in rows if row.key == "torch")
    assert (torch.status, "2.13.0" in torch.found) == (Status.OK, True)


def test_attempts_never_raise() -> None:
    assert attempt(["no-such-program-here"]) == Tried(False, "no-such-program-here is not installed")
    assert attempt(["sh", "-c", "echo early; echo late >&2; exit 3"]) == Tried(False, "late")
    assert attempt(["sleep", "60"], timeout_s=0.05).ok is False


def test_criu_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(path: Path, version: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "#!/bin/sh\n"
            f"[ $1 = check ] && {{ echo 'Error (a.c:1): no pagemap'; exit 1; }}\necho Version: {version}\n"
        )
        path.chmod(0o755)
        return path

    monkeypatch.delenv("MIDSTEP_CRIU", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("MIDSTEP_CRIU_PREFIX", str(tmp_path / "prefix"))
    old = put(tmp_path / "bin/criu", "3.17.1")
    assert find_criu() == CriuInfo(old, (3, 17, 1), private=False)
    private = put(tmp_path / "prefix/current/criu", "4.1.1")
    assert find_criu() == CriuInfo(private, (4, 1, 1), private=True)
    chosen = put(tmp_path / "chosen", "4.2")
    monkeypatch.setenv("MIDSTEP_CRIU", str(chosen))
    assert find_criu() == CriuInfo(chosen, (4, 2), private=False)
    assert check_criu(chosen) == "Error (a.c:1): no pagemap"
    assert read_version(tmp_path / "nothing") is None


def test_the_kernel_says_which_criu_suits_it() -> None:
    assert wanted_version("6.1.0-18-amd64") == (4, 1)
    assert wanted_version("6.16.3") == (4, 2)
    between = CriuInfo(Path("/p/criu"), (4, 1, 1), private=True)
    assert judge_criu(between).status is (Status.OK if wanted_version() == (4, 1) else Status.WARN)
