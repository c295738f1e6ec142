"""What /proc says of processes and NVIDIA's driver, without asking the driver."""

from __future__ import annotations

import os
from pathlib import Path


def kernel_driver_version() -> str:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return ""


def machine_has_gpus() -> bool:
    """Whether NVIDIA's driver is loaded here: without it nothing else in this module need be asked."""
    return os.path.exists("/dev/nvidiactl")


def holds_devices(pid: int) -> bool:
    """Whether a process has a device file of NVIDIA's open: any that uses CUDA does, unless checkpointed."""
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith("/dev/nvidia"):
                    return True
            except OSError:
                continue
    except OSError:
        return False
    return False


def is_stopped(pid: int) -> bool:
    """By a signal or a tracer; a frozen cgroup does not show here."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False


def resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")
