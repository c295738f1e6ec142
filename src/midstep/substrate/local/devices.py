"""What this machine has: groups of CPU cores, or GPUs. GPUs are listed as the driver lists them and are
shared by all nodes of an embedded fleet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from midstep.model.fleet import Device


def cpu_devices(count: int, cpus: list[int]) -> tuple[tuple[Device, ...], bool]:
    """Cut cores into ``count`` equal groups. Second answer: True when groups had to share cores."""
    size = len(cpus) // count
    if size == 0:
        shared = tuple(Device(i, "cpu-1c", (cpus[i % len(cpus)],)) for i in range(count))
        return shared, True
    groups = (tuple(cpus[i * size : (i + 1) * size]) for i in range(count))
    return tuple(Device(i, f"cpu-{size}c", g) for i, g in enumerate(groups)), False


def usable_cpus() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def gpu_devices(cpus: list[int]) -> tuple[Device, ...]:
    """The GPUs that nvidia-smi lists, each with a share of the cores; none when there is no working
    driver."""
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=index,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (subprocess.SubprocessError, OSError):
        return ()
    rows = [line.split(",", 1) for line in answer.stdout.splitlines() if "," in line]
    share = max(1, len(cpus) // max(1, len(rows)))
    return tuple(
        Device(int(number), gpu_type(name), _share(cpus, i, share)) for i, (number, name) in enumerate(rows)
    )


def gpu_type(product: str) -> str:
    """'NVIDIA H100 80GB HBM3' -> 'nvidia-h100-80gb-hbm3'. All of the name: what was on a GPU can only be put
    on another one of the same chip and memory."""
    words = re.findall(r"[a-z0-9]+", product.lower())
    return "-".join(["nvidia", *(word for word in words if word != "nvidia")])


def _share(cpus: list[int], index: int, size: int) -> tuple[int, ...]:
    return tuple(cpus[(index * size + k) % len(cpus)] for k in range(size))
