"""A job of another user than root, moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.nodes import Job, Node

CAP_SYS_RESOURCE = 24
CODE = """\
id -u; echo before > made; exec 5>>made
echo ready; while [ ! -e go ]; do sleep 0.02; done
id -u; id -G; grep CapEff /proc/self/status; echo after >&5; touch new; cat made
"""


def test_another_user_is_moved(new_job: Callable[..., Job], nodes: tuple[Node, Node]) -> None:
    rights = next(ln for ln in Path("/proc/self/status").read_text().splitlines() if ln.startswith("CapEff"))
    if not int(rights.split()[1], 16) >> CAP_SYS_RESOURCE & 1:
        pytest.skip("root lacks CAP_SYS_RESOURCE here, without which CRIU cannot dump other users' processes")
    job = new_job(uid=12345)
    job.start(["sh", "-c", CODE])
    job.wait_for("ready")
    job.move(nodes[1])
    (job.outside / "work" / "go").touch()
    assert job.finish() == 0, job.log()
    assert job.log().split() == ["12345", "ready", "12345", "12345", "CapEff:", "0" * 16, "before", "after"]
    assert {name: (job.outside / "work" / name).stat().st_uid for name in ("made", "new")} == {
        "made": 12345,
        "new": 12345,
    }
