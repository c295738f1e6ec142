"""Lines of CRIU's log that are hard to provoke on one machine, as CRIU 4.1 and 4.2 write them."""

from __future__ import annotations

import pytest

from midstep.agent.drivers.errors import Blame, Kind
from midstep.agent.drivers.explain import explain

LINES = [
    (
        "Error (criu/files-ext.c:94): Can't dump file 37 of that type [20666] (chr 195:0)",
        Kind.DEVICE,
        "NVIDIA GPU",
    ),
    (
        "Error (criu/files-ext.c:94): Can't dump file 8 of that type [20660] (chr 226:128)",
        Kind.DEVICE,
        "/dev/dri",
    ),
    (
        "Error (criu/files-ext.c:94): Can't dump file 8 of that type [20660] (chr 42:1)",
        Kind.DEVICE,
        "numbers 42:1",
    ),
    (
        "Error (criu/proc_parse.c:117): Can't handle non-regular mapping on 71's map 7f0000",
        Kind.DEVICE,
        "7f0000",
    ),
    (
        "Error (criu/files-ext.c:94): Can't dump file 3 of that type [600] (anon anon_inode:kvm-vm)",
        Kind.KERNEL_OBJECT,
        "kvm-vm",
    ),
    (
        "Error (criu/files-reg.c:1021): Can't dump ghost file /tmp/big of 5368709120 size, increase limit",
        Kind.FILE_TOO_LARGE,
        "/tmp/big",
    ),
    (
        "Error (criu/sockets.c:628): sockets: Can't get 1:16 opt: Operation not supported",
        Kind.KERNEL,
        "CRIU 4.2",
    ),
    (
        "Error (criu/cr-dump.c:371): Can't get rlimit 0: Operation not permitted",
        Kind.RIGHTS,
        "CAP_SYS_RESOURCE",
    ),
    (
        "Error (criu/tty.c:1700): tty: Found dangling tty with sid 5 pgid 5 (pts) on peer fd 0.",
        Kind.TERMINAL,
        "terminal",
    ),
    (
        "     3: Error (criu/files-reg.c:2074): File usr/lib/libx.so has bad build-ID",
        Kind.FILE_CHANGED,
        "/usr/lib/libx.so",
    ),
    (
        "     3: Error (criu/files-reg.c:2267): Can't open file srv/data on restore: Permission denied",
        Kind.FILE_MISSING,
        "Permission denied",
    ),
    ("(00.1) Error (criu/image.c:1): Can't write: No space left on device", Kind.DISK_FULL, "disk"),
    ("     1: Error (criu/cr-restore.c:1): Can't fork for 7: Cannot allocate memory", Kind.MEMORY, "memory"),
    ("Error (criu/cpu.c:1): cpu: The instruction set is not supported on this cpu", Kind.CPU, "processor"),
    ("Error (criu/vdso.c:1): vdso: Not all symbols found", Kind.KERNEL, "vDSO"),
]


@pytest.mark.parametrize(("line", "kind", "word"), LINES)
def test_a_line_and_its_meaning(line: str, kind: Kind, word: str) -> None:
    noise = "Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
    refusal = explain(f"{noise}{line}\nError (criu/cr-dump.c:2111): Dumping FAILED.\n")
    assert refusal.kind is kind
    assert word in refusal.message
    assert "{" not in refusal.message
    assert refusal.detail in line


def test_what_is_not_known_is_shown() -> None:
    refusal = explain(
        "(00.01) Error (criu/x.c:1): something new\n(00.02) Error (criu/cr-dump.c:1): Dumping FAILED.\n"
    )
    assert (refusal.kind, refusal.blame) == (Kind.UNKNOWN, Blame.OURS)
    assert "something new" in refusal.message
    assert explain("").message == "CRIU failed: it left no log"
