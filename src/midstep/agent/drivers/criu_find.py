"""Which CRIU this machine has. Looked up anew each time: an operator may install one while an agent runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MINIMUM = (4, 1)  # older ones cannot read the vDSO of today's kernels
DEFAULT_PREFIX = Path("/var/lib/midstep/criu")
ANSWER_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class CriuInfo:
    path: Path  # to start it by; absolute
    version: tuple[int, ...]
    private: bool  # in Midstep's own prefix, not the distribution's

    @property
    def new_enough(self) -> bool:
        return self.version >= MINIMUM

    @property
    def version_text(self) -> str:
        return ".".join(str(part) for part in self.version)


def private_prefix() -> Path:
    """Where `midstep doctor --fix` puts CRIU: MIDSTEP_CRIU_PREFIX or the default."""
    return Path(os.environ.get("MIDSTEP_CRIU_PREFIX") or DEFAULT_PREFIX).absolute()


def find_criu() -> CriuInfo | None:
    """The first that is new enough of: $MIDSTEP_CRIU, the private prefix, the system's; else the first that
    runs at all.

    So a result may be too old: ask `new_enough`.
    """
    too_old: CriuInfo | None = None
    for path, private in _candidates():
        version = read_version(path)
        if version is None:
            continue
        info = CriuInfo(path, version, private)
        if info.new_enough:
            return info
        too_old = too_old or info
    return too_old


def read_version(path: Path) -> tuple[int, ...] | None:
    """What `criu --version` says; None if it cannot be started."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_WITHIN_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"^Version:\s*(\d+(?:\.\d+)*)", done.stdout, re.MULTILINE)
    return tuple(int(part) for part in found.group(1).split(".")) if found else None


def check_criu(path: Path) -> str:
    """Run `criu check`; empty when it is content, else its complaint.

    Warnings (of its cache of kernel features, kdat, for one) are no complaint: only the exit status and
    errors count.
    """
    try:
        done = subprocess.run(
            [path, "check"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_WITHIN_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line] or lines[:1]
    return "; ".join(errors) or f"exit status {done.returncode}"


def _candidates() -> Iterator[tuple[Path, bool]]:
    if chosen := os.environ.get("MIDSTEP_CRIU"):
        yield Path(chosen).absolute(), False
    private = private_prefix() / "current" / "criu"
    if private.exists():
        yield private, True
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    if found := shutil.which("criu", path=search):
        yield Path(found).absolute(), False
