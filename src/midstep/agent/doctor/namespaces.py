"""Namespaces and virtual networks: really tried, in a child process that ends at once and leaves nothing."""

from __future__ import annotations

from midstep.agent.doctor.finding import Finding, Status, Tried, attempt

# option of unshare(1) -> what it is needed for
NEEDED = {
    "pid": "each rank has its own process numbers",
    "mount": "each node and rank has its own files",
    "net": "each node has its own addresses",
    "uts": "each node has its own host name",
    "time": "clocks that only go forward go on where they stopped",
}
VIRTUAL_NETWORK = (
    "ip link add name ms0 type veth peer name ms1 && ip link add name ms2 type bridge"
    " && ip link set dev ms0 master ms2"
)


def examine_namespaces() -> list[Finding]:
    rows = [judge_namespace(name, attempt(["unshare", f"--{name}", "--fork", "true"])) for name in NEEDED]
    return [
        *rows,
        judge_network(attempt(["ip", "-V"]), attempt(["unshare", "--net", "sh", "-c", VIRTUAL_NETWORK])),
    ]


def judge_namespace(name: str, tried: Tried) -> Finding:
    what = f"{name} namespace"
    if tried.ok:
        return Finding(f"namespace-{name}", what, "yes", Status.OK)
    if "not installed" in tried.words:
        return Finding(f"namespace-{name}", what, tried.words, Status.BAD, "apt-get install util-linux")
    todo = f"needed so that {NEEDED[name]}: run as root; in a container, give it --privileged"
    return Finding(f"namespace-{name}", what, tried.words, Status.BAD, todo)


def judge_network(ip: Tried, links: Tried) -> Finding:
    what = "veth and bridge"
    if not ip.ok:
        return Finding("network", what, ip.words, Status.BAD, "apt-get install iproute2")
    version = ip.words.removeprefix("ip utility, ").partition(",")[0]
    if links.ok:
        return Finding("network", what, f"yes, {version}", Status.OK)
    todo = (
        "nodes on this machine cannot be given addresses: run as root, and `modprobe veth bridge` on the host"
    )
    return Finding("network", what, links.words, Status.BAD, todo)
