"""The service end to end on a GPU: what `benchmarks/gpu/service.py` says is right in every line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import midstep
from midstep.agent.install.criu_find import find_criu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(find_criu() is None, reason="needs CRIU"),
]
SERVICE = Path(__file__).parents[2] / "benchmarks" / "gpu" / "service.py"


PARTS = ["ddp", "shared", "resized", "wide", "loader", "graphs", "crash", "full", "large"]


@pytest.mark.parametrize("part", PARTS)
def test_a_job_is_moved_and_every_loss_is_the_same(part: str) -> None:
    source = str(Path(midstep.__path__[0]).parent)
    env = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(SERVICE), "cuda", part]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    said = {line["experiment"] for line in lines}
    assert done.returncode == 0 and "service.failed" not in said, done.stdout + done.stderr
    equal = [line["equal"] for line in lines if line["experiment"] == "service.equal"]
    assert equal and all(equal), done.stdout
