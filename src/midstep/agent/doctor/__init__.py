"""What this machine can do for Midstep, and what to do about each lack.

    examine()   one Finding a row: what, found, ok | warn | bad, what to do
    decide()    from the rows, whether jobs can be dumped by CRIU or only be frozen in place
    fix()       installs CRIU 4.1 or newer when there is none

Facts are gathered in one function a module and judged by pure ones, which are what the tests call. Drawing
the table is the command line's part; `python -m midstep.agent.doctor [--fix]` prints it plainly, for set-up
scripts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from midstep.agent.doctor.finding import Finding, Mode, Status
from midstep.agent.doctor.host import examine_host
from midstep.agent.doctor.namespaces import examine_namespaces
from midstep.agent.doctor.software import examine_software
from midstep.agent.install.criu_find import CriuInfo, check_criu, find_criu
from midstep.agent.install.criu_install import install_criu

__all__ = ["Finding", "Mode", "Status", "decide", "examine", "fix"]

STATE_FOLDER = Path("/var/lib/midstep")
# without these no rank can be started apart from others; CRIU itself is of no use then
NEEDED_FOR_CRIU = (
    "architecture", "kernel", "rights", "criu", "criu-check",
    "namespace-pid", "namespace-mount", "namespace-time",
)  # fmt: skip


def examine(python: Path | None = None, state_folder: Path = STATE_FOLDER) -> list[Finding]:
    """All rows, the last one being the mode that follows. Takes seconds (it imports torch in a child); never
    raises.

    `python` is the interpreter that jobs will use; this one by default.
    """
    rows = [
        *examine_host(state_folder),
        *examine_namespaces(),
        *examine_software(python or Path(sys.executable)),
    ]
    return [*rows, judge_mode(rows)]


def decide(findings: Sequence[Finding]) -> Mode:
    bad = {row.key for row in findings if row.status is Status.BAD}
    return Mode.FREEZE if bad & set(NEEDED_FOR_CRIU) else Mode.CRIU


def judge_mode(findings: Sequence[Finding]) -> Finding:
    """The last row, in plain words."""
    if decide(findings) is Mode.CRIU:
        return Finding("mode", "so jobs can be", "suspended, moved and resumed (mode criu)", Status.OK)
    because = ", ".join(
        row.what for row in findings if row.key in NEEDED_FOR_CRIU and row.status is Status.BAD
    )
    found = "suspended and resumed on this node only, their memory stays taken (mode freeze in place)"
    return Finding("mode", "so jobs can be", found, Status.WARN, f"see: {because}")


def fix(progress: Callable[[str], None]) -> CriuInfo:
    """Install CRIU into Midstep's private prefix unless a good one is there. Raises CriuInstallError."""
    info = find_criu()
    if info is not None and info.suits_kernel and not check_criu(info.path):
        progress(f"CRIU {info.version_text} is there already: {info.path}")
        return info
    return install_criu(progress)
