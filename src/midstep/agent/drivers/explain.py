"""CRIU's refusals in words that a user understands: which file, socket or device, and what to do about it.

A rule is a pattern of one line of CRIU's log and a sentence. The rules are tried in their order over all
lines, because the line that names the cause is neither the first nor the last one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from midstep.agent.drivers.errors import Blame, Kind, Refusal

_JOB, _NODE, _OURS = Blame.JOB, Blame.NODE, Blame.OURS
_HARMLESS = (
    "Can't setup RLIMIT_NOFILE",
    "Message reply from daemon is trimmed",
    "Dumping FAILED",
    "Restoring FAILED",
)
_DEVICES = {"10:229": "/dev/fuse", "10:232": "/dev/kvm", "1:1": "/dev/mem", "10:1": "a pointer device"}
_MAJORS = {
    195: "an NVIDIA GPU (/dev/nvidia*)",
    226: "a graphics device (/dev/dri/*)",
    81: "a camera (/dev/video*)",
}
_LOST = "cannot be described to another kernel"


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    kind: Kind
    blame: Blame
    sentence: str  # may name groups of the pattern


def _rule(pattern: str, kind: Kind, blame: Blame, sentence: str) -> _Rule:
    return _Rule(re.compile(pattern), kind, blame, sentence)


_RULES = (
    _rule(
        r"No space left on device|ENOSPC|Disk quota exceeded", Kind.DISK_FULL, _NODE,
        "the disk of this node is full; make room in Midstep's state folder, or raise the quota",
    ),
    _rule(
        r"anon_inode:\[?io_uring|send_fds failed \(-22\)", Kind.IO_URING, _JOB,
        f"a process has an io_uring open, which {_LOST}; switch it off (libuv: UV_USE_IO_URING=0)",
    ),
    _rule(
        r"Can't dump file (?P<fd>\d+) of that type \[\w+\] \(chr (?P<device>[\d:]+)\)", Kind.DEVICE, _JOB,
        "a process has the device {device} open (descriptor {fd}); close it before the job is to move",
    ),
    _rule(
        r"Can't dump file (?P<fd>\d+) of that type \[\w+\] \(anon anon_inode:\[?(?P<what>[\w-]+)\]?\)",
        Kind.KERNEL_OBJECT, _JOB, "a process has a {what} object open (descriptor {fd}), which " + _LOST,
    ),
    _rule(
        r"Can't dump file (?P<fd>\d+) of that type \[\w+\] \((?P<what>.*)\)", Kind.KERNEL_OBJECT, _JOB,
        "a process has something open (descriptor {fd}: {what}) that " + _LOST,
    ),
    _rule(
        r"tun: Net namespace is required", Kind.DEVICE, _JOB,
        "a process has the device /dev/net/tun open: a network device cannot move with a job",
    ),
    _rule(
        r"overmounted mounts are not supported yet; mount=\d+ fd=(?P<fd>\d+) path=(?P<path>/proc\S*)",
        Kind.PROC_FILE, _JOB,
        "a process has {path} open (descriptor {fd}): files of /proc belong to this kernel; if it only "
        "reads them now and "
        "then, the next try will pass",
    ),
    _rule(
        r"overmounted mounts are not supported yet; mount=\d+ fd=(?P<fd>\d+) path=(?P<path>\S*)",
        Kind.MOUNT, _JOB,
        "a process has {path} open (descriptor {fd}), over which something else was mounted since",
    ),
    _rule(
        r"Can't lookup mount=\d+ for fd=(?P<fd>-?\d+) path=/secretmem", Kind.KERNEL_OBJECT, _JOB,
        "a process has secret memory (memfd_secret), which nobody else may read",
    ),
    _rule(
        r"Can't lookup mount=\d+ for fd=(?P<fd>-?\d+) path=(?P<path>.*)", Kind.MOUNT, _JOB,
        "a process has {path} open (descriptor {fd}) on a mount that is not there any more, or it is a "
        "POSIX message queue",
    ),
    _rule(
        r"Can't dump ghost file (?P<path>\S+) of (?P<size>\d+) size", Kind.FILE_TOO_LARGE, _JOB,
        "the deleted file {path} ({size} bytes) is still open; more than 4 GiB of it cannot be carried: "
        "do not delete it",
    ),
    _rule(
        r"Can't find link-remap|Can't link remap to (?P<path>\S+)|Can't create link remap for (?P<path2>\S+)",
        Kind.FILE_MISSING, _JOB,
        "an open file was deleted, and its folder cannot be written to: {path}{path2}",
    ),
    _rule(
        r"half of stream unix connection|unix: External (?:stream|socket)|Dangling connection|Runaway socket",
        Kind.SOCKET, _JOB,
        "a process holds a connection over a unix socket to a program outside of the job; close it "
        "before the job is to move",
    ),
    _rule(
        r"inet: Unsupported proto (?P<proto>\d+)", Kind.SOCKET, _JOB,
        "a process has a socket of an unusual protocol ({proto}) open; only TCP, UDP and raw ones can move "
        "(MPTCP is 262; programs in Go: GODEBUG=multipathtcp=0)",
    ),
    _rule(
        r"Unknown socket collected \(family (?P<family>\d+)\)", Kind.SOCKET, _JOB,
        "a process has a socket of an unusual family ({family}) open; only unix, IPv4, IPv6, netlink "
        "and packet ones can move",
    ),
    _rule(
        r"Can't get 1:(?:16|34) opt: Operation not supported", Kind.KERNEL, _NODE,
        "this CRIU is too old for network sockets on this kernel (6.16 or newer needs CRIU 4.2): "
        "midstep doctor --fix",
    ),
    _rule(
        r"Name (?P<name>\S+) .*can't be connected|sk unix: Can't connect|unix: Can't connect (?P<name2>\S*)",
        Kind.SOCKET, _NODE,
        "nobody listens on the unix socket that the job was connected to: {name}{name2}",
    ),
    _rule(
        r"inet: Can't bind inet socket.*|Can't bind: Address already in use", Kind.SOCKET, _NODE,
        "an address or a port that the job listens on is taken on this node; choose another node, or "
        "end what holds it",
    ),
    _rule(
        r"Found (?:dangling tty|slave peer)|tty: .*(?:No such|can't|Can't)", Kind.TERMINAL, _JOB,
        "a process has a terminal open whose other end is outside of the job",
    ),
    _rule(
        r"Unseizable non-zombie (?P<pid>\d+) found, state t|SEIZE (?P<pid2>\d+): can't seize|already traced",
        Kind.TRACED, _JOB,
        "a process is being traced (by a debugger, strace or perf); end the tracer",
    ),
    _rule(
        r"Can't dump nested (?P<what>\w+) namespace|sub-task in NS|Nested (?P<what2>\w+) namespaces",
        Kind.NAMESPACE, _JOB,
        "a process of the job has a {what}{what2} namespace of its own (unshare, bubblewrap, a "
        "container); these cannot move",
    ),
    _rule(
        r"File (?P<path>\S+) has bad (?:size|mode|build-ID)[^(]*(?:\(expect[^)]*\))?",
        Kind.FILE_CHANGED, _NODE,
        "the file /{path} is not the same here as where the job was: data and software outside of the "
        "job's working folder "
        "must be equal on all nodes",
    ),
    _rule(
        r"Can't open file (?P<path>\S+?)(?: on restore)?: No such file or directory",
        Kind.FILE_MISSING, _NODE,
        "the file /{path}, which the job has open, is not on this node; keep it in the job's working "
        "folder, or on all nodes",
    ),
    _rule(
        r"Can't open file (?P<path>\S+?)(?: on restore)?: (?P<why>.+)", Kind.FILE_MISSING, _NODE,
        "the file /{path}, which the job has open, cannot be opened on this node: {why}",
    ),
    _rule(
        r"Can't open file (?P<path>\S+) on restore", Kind.FILE_MISSING, _NODE,
        "the file /{path} cannot be opened on this node",
    ),
    _rule(
        r"Can't get rlimit \d+: Operation not permitted", Kind.RIGHTS, _NODE,
        "root lacks CAP_SYS_RESOURCE on this node, so only root's own processes can be dumped; run the "
        "agent with all rights",
    ),
    _rule(r"SECCOMP|seccomp", Kind.SECCOMP, _JOB, "a process has a seccomp filter that could not be carried"),
    _rule(
        r"(?:cpu|CPU).*(?:not supported|incompatible|capability|instruction)|xsave.*size|FPU .*mismatch",
        Kind.CPU, _NODE,
        "the processor of this node lacks what the job has used on the other one; choose a node of the "
        "same kind",
    ),
    _rule(
        r"Can't handle non-regular mapping on (?P<pid>\d+)'s map (?P<at>\w+)", Kind.DEVICE, _JOB,
        "a process has memory of a device mapped (at {at}); it cannot be moved while it uses that device",
    ),
    _rule(
        r"Pid (?P<pid>\d+) do(?:es)? not match expected|Can't fork for (?P<pid2>\d+): File exists",
        Kind.PID_TAKEN, _OURS,
        "the process number {pid}{pid2} is taken in the new namespace",
    ),
    _rule(
        r"Cannot allocate memory|Out of memory|Can't fork for \d+: Resource temporarily", Kind.MEMORY, _NODE,
        "this node has not enough memory, or too many processes, for the job",
    ),
    _rule(
        r"vdso|vDSO", Kind.KERNEL, _NODE,
        "this CRIU does not know this kernel (vDSO); install a newer one: midstep doctor --fix",
    ),
    _rule(
        r"Operation not permitted|Permission denied", Kind.RIGHTS, _NODE,
        "CRIU lacks a right on this node; run the agent as root with all capabilities (midstep doctor)",
    ),
)  # fmt: skip


def explain(log_text: str) -> Refusal:
    """What a log of a failed CRIU says; Kind.UNKNOWN with CRIU's own first error when no rule fits."""
    lines = list(_telling(log_text))
    for rule in _RULES:
        for line in lines:
            if match := rule.pattern.search(line):
                words = {name: _word(name, text) for name, text in match.groupdict("").items()}
                return Refusal(rule.kind, rule.blame, rule.sentence.format(**words), line)
    first = next((line for line in lines if "Error" in line), lines[-1] if lines else "it left no log")
    return Refusal(Kind.UNKNOWN, _OURS, f"CRIU failed: {first}", "\n".join(lines[-10:]))


def _telling(log_text: str) -> Iterator[str]:
    for line in log_text.splitlines():
        if line.strip() and not any(text in line for text in _HARMLESS):
            yield re.sub(r"^\(\d+\.\d+\)\s*", "", line.strip())


def _word(name: str, text: str) -> str:
    if name == "device":
        major = int(text.partition(":")[0])
        return _DEVICES.get(text) or _MAJORS.get(major) or f"with the numbers {text}"
    return text
