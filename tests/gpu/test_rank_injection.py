"""What of a GPU the runtime makes a process leave: else CRIU would refuse it for what it does not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import midstep

pytestmark = pytest.mark.gpu
INJECT = Path(midstep.__path__[0]) / "runtime" / "inject"
FOUND = """
import os, sys
def devices():
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + number))
        except OSError:
            pass
    mapped = [line.split()[5] for line in open("/proc/self/maps") if len(line.split()) > 5]
    return sum(name.startswith("/dev/nvidia") for name in links + mapped)
"""
COUNT = "import torch; assert torch.cuda.device_count() > 0; print(devices())"
FORK = """
import torch
x = torch.ones(1000, device="cuda")
before = devices()
child = os.fork()
if child == 0:
    sys.exit(100 if devices() else 7)  # by the whole way out, past the destructors of the CUDA library
_, status = os.waitpid(child, 0)
assert x.sum().item() == 1000 and devices() == before
print(before > 0, os.waitstatus_to_exitcode(status))
"""


def said(program: str, folder: Path, injected: bool) -> str:
    env = dict(os.environ)
    if injected:
        env |= {"PYTHONPATH": str(INJECT), "MIDSTEP_RUN": str(folder)}
    command = [sys.executable, "-c", FOUND + program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def test_counting_devices_leaves_nothing_open(tmp_path):
    assert int(said(COUNT, tmp_path, injected=True)) == 0


def test_without_us_counting_devices_leaves_nvml_open(tmp_path):
    """If this fails, torch or NVML has changed, and `close_nvml` is not needed any more."""
    assert int(said(COUNT, tmp_path, injected=False)) > 0


def test_a_forked_child_lets_go_and_its_parent_does_not(tmp_path):
    assert said(FORK, tmp_path, injected=True) == "True 7"
