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
WITH_SOCKETS = (4, 2)  # on kernels from 6.16 on, 4.1 cannot dump a process that has an IPv4 or IPv6 socket
SOCKETS_CHANGED_IN = (6, 16)
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
    def suits_kernel(self) -> bool:
        """Whether it can dump all that this kernel has; else it works, but not for processes with sockets."""
        return self.version >= wanted_version()

    @property
    def version_text(self) -> str:
        return ".".join(str(part) for part in self.version)


def private_prefix() -> Path:
    """Where `midstep doctor --fix` puts CRIU: MIDSTEP_CRIU_PREFIX or the default."""
    return Path(os.environ.get("MIDSTEP_CRIU_PREFIX") or DEFAULT_PREFIX).absolute()


def wanted_version(kernel: str | None = None) -> tuple[int, ...]:
    """The oldest CRIU that suits a kernel (`uname -r`; None: this one)."""
    numbers = re.findall(r"\d+", kernel or os.uname().release)[:2]
    return WITH_SOCKETS if tuple(map(int, numbers)) >= SOCKETS_CHANGED_IN else MINIMUM


def find_criu() -> CriuInfo | None:
    """$MIDSTEP_CRIU if it is new enough; else the first of the private prefix's and the system's that suits
    the kernel, that is new enough, that runs at all.

    So a result may be too old: ask `new_enough` and `suits_kernel`.
    """
    found: list[CriuInfo] = []
    for path, private in _candidates():
        version = read_version(path)
        if version is not None:
            found.append(CriuInfo(path, version, private))
    chosen = [info for info in found if str(info.path) == os.environ.get("MIDSTEP_CRIU") and info.new_enough]
    suits = [info for info in found if info.suits_kernel]
    works = [info for info in found if info.new_enough]
    return next(iter([*chosen, *suits, *works, *found]), None)


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
