"""Shared by the experiments: results as JSON lines, ranks that CRIU can dump, a cut with its times."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "src"))
from midstep.agent.drivers.cuda import CudaDriver as CudaDriver  # noqa: E402
from midstep.agent.drivers.cuda import Phase as Phase  # noqa: E402

CRIU = os.environ.get("CRIU", "criu")
SCRATCH = Path(os.environ.get("MIDSTEP_GPU_SCRATCH", "/dev/shm/midstep-gpu"))
CRIU_OPTIONS = ["--ghost-limit", "512M", "--link-remap", "--tcp-close", "-v4"]


def leave(*_: object) -> None:
    """A time limit (SIGTERM) unwinds as an error does, so that no rank is left behind on the device."""
    raise SystemExit(143)


signal.signal(signal.SIGTERM, leave)


def emit(experiment: str, **fields: Any) -> None:
    line = json.dumps({"experiment": experiment, **fields}, default=str)
    print(line, flush=True)
    if path := os.environ.get("MIDSTEP_GPU_RESULTS"):
        with open(path, "a") as file:
            file.write(line + "\n")


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float = 60.0, every_s: float = 0.002) -> Any:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if value := condition():
            return value
        time.sleep(every_s)
    raise TimeoutError(what)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def first_process(last_pid: int, command: list[str], **options: Any) -> tuple[subprocess.Popen[bytes], int]:
    """A PID namespace with its own /proc (else cuInit fails), first.py in it; its launcher, its pid here."""
    enter = [
        "unshare",
        "--pid",
        "--fork",
        "--mount",
        "--mount-proc",
        sys.executable,
        str(HERE / "jobs/first.py"),
    ]
    launcher = subprocess.Popen([*enter, str(last_pid), *command], stdout=subprocess.PIPE, **options)
    assert launcher.stdout is not None and launcher.stdout.readline() == b"ready\n"
    path = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    return launcher, int(wait_for("unshare's child", lambda: path.read_text().split(), 10)[0])


class Rank:
    """A process that CRIU can dump: own session, own PID namespace, nothing inherited, streams on a file.

    CRIU runs inside the same namespaces, so they are no part of the image: each restore gets new ones.
    """

    def __init__(
        self, name: str, job: str, *args: object, pid_ns: bool = True, fresh: bool = True, **env: str
    ):
        self.folder = SCRATCH / name
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log, self.pid_ns, self.first, self.restores = self.folder / "log", pid_ns, 0, 0
        start = [sys.executable, str(HERE / "jobs/start.py"), str(self.log)]
        command = [*start, sys.executable, str(HERE / "jobs" / job), *map(str, args)]
        options: dict[str, Any] = {"env": {**os.environ, **env}, "cwd": self.folder}
        if pid_ns:
            self.launcher, self.first = first_process(0, command, **options)
            self.pid = wait_for("the rank", lambda: children(self.first), 10)[0]
        else:
            self.launcher = subprocess.Popen(command, **options)
            self.pid = self.launcher.pid

    def inside(self) -> list[str]:
        """What puts a command into the rank's namespaces."""
        return ["nsenter", "-t", str(self.first), "-p", "-m"] if self.pid_ns else []

    def inner_pid(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("NSpid")).split()[-1])

    def end_namespaces(self) -> None:
        if self.first:
            os.kill(self.first, signal.SIGKILL)
        self.launcher.wait(10)  # reaped, so that the pid is free again

    def go(self) -> None:
        """Jobs started early, for their long way to the first step, wait for this file."""
        (self.folder / "go").touch()

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def lines(self, prefix: str = "step ") -> list[str]:
        return [line for line in self.text().split("\n")[:-1] if line.startswith(prefix)]

    def wait_lines(self, count: int, prefix: str = "step ", timeout_s: float = 90.0) -> list[str]:
        def enough() -> list[str] | None:
            found = self.lines(prefix)
            if len(found) < count and not alive(self.pid):
                raise RuntimeError(f"{self.folder.name} died: {self.text()[-1500:]}")
            return found if len(found) >= count else None

        return wait_for(
            f"{count} lines '{prefix}' of {self.folder.name}: {self.text()[-400:]}", enough, timeout_s
        )

    def kill(self) -> None:
        for pid in (self.first or self.pid, self.pid, self.launcher.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            self.launcher.wait(10)
        except subprocess.TimeoutExpired:
            pass


def pid_path_left(pid: int) -> dict[str, list[str]]:
    """What a process and its children have open or mapped: devices, sockets, shared memory."""
    descriptors, mappings = [], set()
    for one in [pid, *children(pid)]:
        for fd in Path(f"/proc/{one}/fd").iterdir():
            try:
                target = os.readlink(fd)
            except OSError:
                continue
            if (
                target.startswith(("/dev/nv", "socket:", "anon_inode", "/memfd", "/dev/shm"))
                and "midstep-gpu" not in target
            ):
                descriptors.append(f"{'' if one == pid else 'child '}{target.split(':[')[0]}")
        for line in Path(f"/proc/{one}/maps").read_text().splitlines():
            name = line.split(maxsplit=5)[5] if len(line.split()) > 5 else ""
            if name.startswith(("/dev/", "/memfd")):
                mappings.add(f"{'' if one == pid else 'child '}{name}")
    return {"descriptors": sorted(descriptors), "mappings": sorted(mappings)}


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found + [deeper for child in found for deeper in children(child)]


def tree_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def criu(rank: Rank, verb: str, images: Path, *options: str, timeout_s: float = 240.0) -> float:
    images.mkdir(parents=True, exist_ok=True)
    command = [*rank.inside(), CRIU, verb, "-D", str(images), "-o", f"{verb}.log", *CRIU_OPTIONS, *options]
    begun_s = time.monotonic()
    status = subprocess.run(command, timeout=timeout_s, capture_output=True, text=True)
    took_s = time.monotonic() - begun_s
    if status.returncode:
        log = images / f"{verb}.log"
        text = log.read_text(errors="replace").splitlines() if log.exists() else []
        errors = [line for line in text if "Error" in line or "Warn" in line][-8:]
        raise RuntimeError(f"criu {verb}: {status.returncode}: {errors} {status.stderr[-300:]}")
    return took_s


def dump_and_restore(rank: Rank, images: Path) -> dict[str, float]:
    """CRIU alone: the rank must be checkpointed. Afterwards `rank.pid` is the restored process."""
    shutil.rmtree(images, ignore_errors=True)
    dump_s = criu(rank, "dump", images, "-t", str(rank.inner_pid()))
    wait_for("death of the dumped rank", lambda: not alive(rank.pid), 10)
    rank.end_namespaces()
    image_bytes = tree_bytes(images)
    rank.restores += 1
    if rank.pid_ns:
        rank.launcher, rank.first = first_process(100_000 * rank.restores, [])
    restore_s = criu(rank, "restore", images, "-d", "--pidfile", str(images / "pid"))
    rank.pid = children(rank.first)[0] if rank.pid_ns else int((images / "pid").read_text())
    return {"criu_dump_s": dump_s, "criu_restore_s": restore_s, "image_bytes": image_bytes}


def cut(driver: CudaDriver, rank: Rank, images: Path | None, inspect: bool = False) -> dict[str, Any]:
    """A cut of one rank; with `images` through CRIU and the death of the process. `inspect` costs time."""
    before = len(rank.lines())
    begun_s = time.monotonic()
    parts: dict[str, Any] = {"lock_s": driver.lock([rank.pid], 30_000).duration_s}
    report = driver.checkpoint([rank.pid])
    parts |= {"checkpoint_s": report.duration_s, "device_bytes": report.moved_bytes}
    if inspect:
        parts |= {"left": pid_path_left(rank.pid), "device_used_bytes": device_used_bytes()}
    if images is not None:
        parts |= dump_and_restore(rank, images)
    parts["restore_s"] = driver.restore([rank.pid]).duration_s
    parts["unlock_s"] = driver.unlock([rank.pid]).duration_s
    rank.wait_lines(before + 2)
    parts["whole_s"] = time.monotonic() - begun_s
    return parts


def device_used_bytes() -> int:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, text=True).stdout.split()[0]) << 20


def random_instant(seed: int, low_s: float = 0.05, high_s: float = 0.4) -> None:
    time.sleep(random.Random(seed).uniform(low_s, high_s))
