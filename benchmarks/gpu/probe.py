"""What the machine is: GPU, driver, kernel, versions, CRIU, and the bandwidth of a pinned copy each way."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import CRIU, emit


def said(command: str) -> str:
    found = subprocess.run(command, shell=True, capture_output=True, text=True)
    return (found.stdout + found.stderr).strip()[-700:]


def bandwidth() -> dict[str, float]:
    host, found = torch.empty(2 << 30, dtype=torch.uint8, pin_memory=True), {}
    device = torch.randint(0, 255, (2 << 30,), dtype=torch.uint8, device="cuda")
    pageable = torch.empty(2 << 30, dtype=torch.uint8)
    pageable.fill_(1)
    pairs = {
        "pinned_d2h": (host, device),
        "pinned_h2d": (device, host),
        "pageable_d2h": (pageable, device),
        "pageable_h2d": (device, pageable),
    }
    for name, (to, source) in pairs.items():
        times = []
        for _ in range(5):
            torch.cuda.synchronize()
            begun_s = time.perf_counter()
            to.copy_(source)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begun_s)
        found[f"{name}_gb_per_s"] = (2 << 30) / sorted(times)[2] / 1e9
    begun_s = time.perf_counter()
    fresh = torch.empty(2 << 30, dtype=torch.uint8)
    fresh.copy_(device)
    found["fresh_pageable_d2h_gb_per_s"] = (2 << 30) / (time.perf_counter() - begun_s) / 1e9
    return found


def touch_memory(gb: int = 80) -> None:
    """Write to most of the memory once: a virtual machine may be given its pages only then, slowly."""
    piece = f"{sys.executable} -c 'b = bytearray({gb << 30} // 16); b[::4096] = bytes(len(b[::4096]))'"
    begun_s = time.perf_counter()
    for process in [subprocess.Popen(piece, shell=True) for _ in range(16)]:
        process.wait()
    emit("probe.touch", gb=gb, duration_s=time.perf_counter() - begun_s)


def main() -> None:
    touch_memory()
    emit(
        "probe.machine",
        gpu=torch.cuda.get_device_name(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        kernel=platform.release(),
        cores=os.cpu_count(),
    )
    fields = "name,driver_version,memory.total,pcie.link.gen.current,pcie.link.width.current,mig.mode.current"
    emit("probe.driver", nvidia_smi=said(f"nvidia-smi --query-gpu={fields} --format=csv"))
    emit("probe.criu", version=said(f"{CRIU} --version"), check=said(f"{CRIU} check"))
    emit(
        "probe.host",
        memory=said("free -g | head -2"),
        space=said("df -h / /dev/shm /tmp"),
        thp=Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text().strip(),
    )
    emit("probe.bandwidth", **bandwidth())


if __name__ == "__main__":
    main()
