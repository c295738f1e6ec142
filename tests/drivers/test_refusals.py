"""Programs that hold what cannot be moved: the dump is refused in words, nothing is left of it, and the
program goes on.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from midstep.agent.drivers.errors import Blame, Kind, Refused
from tests.drivers.nodes import STATE, Job, Node

CASES = Path(__file__).parent / "cases"
HEAD = """\
import ctypes, os, socket, subprocess, sys, time
from pause import pause
libc = ctypes.CDLL(None, use_errno=True)
librt = ctypes.CDLL("librt.so.1")
def run(*command): globals().update(p=subprocess.Popen(command)); time.sleep(0.3); return p
def nothing(): print("ready but cannot", flush=True); sys.exit(77)
"""
HELD = {
    "fuse": (Kind.DEVICE, "/dev/fuse", "f = open('/dev/fuse', 'r+b', 0)"),
    "tun": (Kind.DEVICE, "/dev/net/tun", "f = open('/dev/net/tun', 'r+b', 0)"),
    "io_uring": (Kind.IO_URING, "io_uring", "libc.syscall(425, 8, bytes(120)) > 0 or nothing()"),
    "userfaultfd": (Kind.KERNEL_OBJECT, "userfaultfd", "libc.syscall(323, 0) > 0 or nothing()"),
    "secret memory": (Kind.KERNEL_OBJECT, "secret", "libc.syscall(447, 0) > 0 or nothing()"),
    "file of /proc": (Kind.PROC_FILE, "/proc/meminfo", "f = open('/proc/meminfo'); f.read(9)"),
    "namespace": (Kind.NAMESPACE, "net", "f = os.open('/proc/self/ns/net', 0)"),
    "mounts of its own": (Kind.NAMESPACE, "mnt", "run('unshare', '-m', 'sleep', '99')"),
    "pids of its own": (Kind.NAMESPACE, "pid", "run('unshare', '-pf', 'sleep', '99')"),
    "a mount": (Kind.MOUNT, "work/m", "os.mkdir('m'); os.system('mount -t tmpfs x m')"),
    "message queue": (Kind.MOUNT, "/q", "librt.mq_open(b'/q', 0o102, 0o600, None) > 0 or nothing()"),
    "debugger": (Kind.TRACED, "traced", "libc.ptrace(16, run('sleep', '99').pid, None, None)"),
    "mptcp": (Kind.SOCKET, "262", "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)"),
    "vsock": (Kind.SOCKET, "family (40)", "s = socket.socket(40, socket.SOCK_STREAM)"),
    "unix stream to outside": (Kind.SOCKET, "outside", "s = socket.socket(socket.AF_UNIX); s.connect(OUT)"),
}  # fmt: skip


@pytest.mark.parametrize("what", HELD)
def test_a_refusal_says_why_and_the_job_goes_on(
    what: str, new_job: Callable[..., Job], nodes: tuple[Node, Node]
) -> None:
    kind, word, code = HELD[what]
    job = new_job()
    outside = socket.socket(socket.AF_UNIX)
    nodes[0].do(lambda: (outside.bind(f"{STATE}/out.sock"), outside.listen()))
    (job.outside / "work" / "pause.py").write_bytes((CASES / "pause.py").read_bytes())
    (job.outside / "work" / "holds.py").write_text(
        f"{HEAD}\nOUT = '{STATE}/out.sock'\n{code}\npause()\nprint('went on')\n"
    )
    job.start([sys.executable, "holds.py"])
    job.wait_for("ready")
    if "cannot" in job.log():
        pytest.skip("this machine has no such thing")
    frozen = job.freeze()
    with pytest.raises(Refused) as refused:
        nodes[0].do(lambda: job.criu.dump(job.processes[0], STATE / "images", 10))
    refusal = refused.value.refusal
    assert (refusal.kind, refusal.blame) == (kind, Blame.JOB), refusal
    assert word in refusal.message
    assert os.listdir(nodes[0].disk / "images") == []
    job.thaw(frozen)
    (job.outside / "work" / "go").touch()
    assert job.finish() == 0, job.log()
    assert "went on" in job.log()
    outside.close()


def test_a_file_that_is_missing_or_differs_on_the_other_node(
    new_job: Callable[..., Job], nodes: tuple[Node, Node]
) -> None:
    for content, kind in ((None, Kind.FILE_MISSING), ("another length", Kind.FILE_CHANGED)):
        job = new_job()
        (nodes[0].disk / "data").write_text("data")
        if content is not None:
            (nodes[1].disk / "data").write_text(content)
        job.start(["sh", "-c", f"exec 5<{STATE}/data; echo ready; sleep 100"])
        job.wait_for("ready")
        with pytest.raises(Refused) as refused:
            job.move(nodes[1])
        assert (refused.value.refusal.kind, refused.value.refusal.blame) == (kind, Blame.NODE)
        assert f"{STATE}/data" in refused.value.refusal.message
        job.node = nodes[1]
        job.remove()


def test_a_port_that_is_taken_on_the_other_node(
    new_job: Callable[..., Job], nodes: tuple[Node, Node]
) -> None:
    job = new_job()
    taken = nodes[1].do(lambda: socket.create_server(("127.0.0.1", 18090)))
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 18090)); print('ready', flush=True)"
    code += "; time.sleep(99)"
    job.start([sys.executable, "-c", code])
    job.wait_for("ready")
    with pytest.raises(Refused) as refused:
        job.move(nodes[1])
    if refused.value.refusal.kind is Kind.KERNEL:
        pytest.skip(refused.value.refusal.message)
    assert refused.value.refusal.kind is Kind.SOCKET, refused.value.refusal
    taken.close()


def test_files_that_are_written_outside_of_the_home_are_named(
    new_job: Callable[..., Job], nodes: tuple[Node, Node]
) -> None:
    job = new_job()
    job.start(["sh", "-c", f"exec 5>{STATE}/out 6>inside; echo ready; sleep 100"])
    job.wait_for("ready")
    job.freeze()
    dumped = nodes[0].do(lambda: job.criu.dump(job.processes[0], STATE / "images", 10))
    assert dumped.outside == (f"{STATE}/out",)
