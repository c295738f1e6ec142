"""CRIU, torch, GPUs: what is installed, and whether it works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from midstep.agent.doctor.finding import Finding, Status, Tried, attempt
from midstep.agent.drivers.cuda import CudaDriver, CudaSupport
from midstep.agent.install.criu_find import MINIMUM, CriuInfo, check_criu, find_criu

OLDEST_TORCH = (2, 4)
OLDEST_DRIVER = 570
ASK_TORCH = """
import json, sys, torch
print(json.dumps([sys.version.split()[0], str(torch.__version__), torch.version.cuda or ""]))
"""


def examine_software(python: Path) -> list[Finding]:
    """`python` is the interpreter that jobs will use."""
    info = find_criu()
    complaint = check_criu(info.path) if info is not None and info.new_enough else ""
    gpus = attempt(
        ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    )
    return [
        judge_criu(info),
        judge_criu_check(info, complaint),
        judge_torch(python, attempt([str(python), "-c", ASK_TORCH], timeout_s=120.0)),
        *judge_gpus(gpus, CudaDriver().available),
    ]


def judge_criu(info: CriuInfo | None) -> Finding:
    wanted = ".".join(str(part) for part in MINIMUM)
    todo = "midstep doctor --fix"
    if info is None:
        return Finding("criu", "CRIU", "none", Status.BAD, todo)
    found = f"{info.version_text} ({'private' if info.private else 'system'}: {info.path})"
    if info.suits_kernel:
        return Finding("criu", "CRIU", found, Status.OK)
    if info.new_enough:
        lack = f"on this kernel it cannot dump processes with network sockets: {todo}"
        return Finding("criu", "CRIU", found, Status.WARN, lack)
    return Finding("criu", "CRIU", found, Status.BAD, f"{todo} (older than {wanted})")


def judge_criu_check(info: CriuInfo | None, complaint: str) -> Finding:
    what = "criu check"
    if info is None or not info.new_enough:
        return Finding("criu-check", what, "not run", Status.BAD, "midstep doctor --fix")
    if not complaint:
        return Finding("criu-check", what, "looks good", Status.OK)
    return Finding(
        "criu-check", what, complaint, Status.BAD, "the kernel or this process's rights lack what it names"
    )


def judge_torch(python: Path, tried: Tried) -> Finding:
    if not tried.ok:
        todo = f"{python} -m pip install torch; only jobs that use it need it"
        return Finding("torch", "torch", f"{python}: {tried.words}", Status.WARN, todo)
    version, torch, cuda = json.loads(tried.words.splitlines()[-1])
    found = f"{torch}{f' for CUDA {cuda}' if cuda else ''}, Python {version} ({python})"
    if tuple(int(part) for part in torch.split("+")[0].split(".")[:2]) >= OLDEST_TORCH:
        return Finding("torch", "torch", found, Status.OK)
    return Finding("torch", "torch", found, Status.BAD, "install torch 2.4 or newer for distributed jobs")


def judge_gpus(listed: Tried, ask_driver: Callable[[], CudaSupport]) -> list[Finding]:
    """One row a GPU, and one for the driver's process checkpoint if there are any; it is asked only then."""
    if not listed.ok or not listed.words:
        return [Finding("gpu", "GPUs", "none (devices are groups of CPU cores)", Status.OK)]
    rows: list[Finding] = []
    for number, line in enumerate(listed.words.splitlines()):
        name, memory_mib, driver = [part.strip() for part in line.split(",")]
        found = f"{name}, {_gib(memory_mib)}, driver {driver}"
        rows.append(Finding(f"gpu-{number}", f"GPU {number}", found, Status.OK))
    support = ask_driver()
    what = "GPU checkpoint"
    if support.ok:
        return [*rows, Finding("gpu-checkpoint", what, f"yes, driver {support.driver_version}", Status.OK)]
    todo = (
        f"install NVIDIA driver {OLDEST_DRIVER} or newer; until then jobs on these GPUs are frozen in place"
    )
    return [*rows, Finding("gpu-checkpoint", what, support.reason, Status.WARN, todo)]


def _gib(memory_mib: str) -> str:
    return f"{int(memory_mib) / 1024:.0f} GiB" if memory_mib.isdigit() else memory_mib
