"""The process that keeps one virtual node's namespaces alive. Run as a file, by ``python -I -S``: it stays
for as long as the fleet does, so it imports nothing that it can do without, and nothing of Midstep.

Its one argument is JSON: ``name``, ``state`` (hidden inside), ``node`` and ``vault`` (folders), ``hosts``
(file), ``join`` (a process whose namespaces to enter; 0: make new ones), ``join_mount`` (its mounts too). It
writes one line to its standard output, ``ready`` or what failed, and then waits for ever.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_NAME = 15
NAME = b"midstep-node"  # the process is called so as soon as, and only when, the node is complete
INSIDE = "/run/midstep"

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """OSError: the call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). OSError: it failed."""
    c = [text.encode() for text in (source, target, kind, data)]
    check(libc.mount(c[0], c[1], c[2], ctypes.c_ulong(flags), c[3]), f"mount {source or kind} on {target}")


def enter(config: dict[str, Any]) -> bool:
    """Make the namespaces, or join those of a process that is still in them. True: the mounts have to be
    made."""
    pid = config["join"]
    if not pid:
        check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET), "unshare")
        return True
    kinds = ["net", "uts", "ipc"] + (["mnt"] if config["join_mount"] else [])
    handles = [(k, os.open(f"/proc/{pid}/ns/{k}", os.O_RDONLY)) for k in kinds]
    for kind, handle in handles:
        check(libc.setns(handle, 0), f"setns {kind} of {pid}")
        os.close(handle)
    if not config["join_mount"]:
        check(libc.unshare(CLONE_NEWNS), "unshare")
    return not config["join_mount"]


def furnish(config: dict[str, Any]) -> None:
    """What a process of this node finds: its own folder, its region's vault, its names; nothing of its
    neighbours."""
    mount("", "/", "", MS_REC | MS_PRIVATE)
    mount("midstep", INSIDE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=256m")
    for place, source in (("node", config["node"]), ("vault", config["vault"]), ("cell", "")):
        os.mkdir(f"{INSIDE}/{place}", 0o755)
        if source:
            mount(source, f"{INSIDE}/{place}", "", MS_BIND)
    if os.path.exists("/etc/hosts"):
        mount(config["hosts"], "/etc/hosts", "", MS_BIND)
    if os.path.isdir("/dev/shm"):
        mount("midstep", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    # Last, because it hides the sources above. Read-only: a write to a path of the host's must fail, not
    # vanish.
    mount("midstep", config["state"], "tmpfs", MS_RDONLY, "mode=755,size=4k")


def main() -> None:
    config = json.loads(sys.argv[1])
    try:
        fresh = enter(config)
        if fresh:
            furnish(config)
        host = config["name"].encode()
        check(libc.sethostname(host, len(host)), "sethostname")
    except OSError as error:
        print(f"node {config['name']}: {error.strerror or error}", flush=True)
        sys.exit(1)
    libc.prctl(PR_SET_NAME, NAME, 0, 0, 0)
    os.chdir("/")
    print("ready", flush=True)
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
