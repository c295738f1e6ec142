"""Slow links: the cables between a fleet's bridge and its nodes, limited by the kernel in both directions.

A token bucket (tbf) limits the rate and lets packets wait in a queue for at most ``queue_ms``, as a slow line
does; so a stream sees that much delay, and a single request on an idle line sees none. (`netem`, which delays
every packet, is not in every kernel.)
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from midstep.substrate.local.plan import PLAN
from midstep.substrate.local.processes import load


@contextmanager
def limited(state: Path, nodes: Sequence[str], mbit: float, queue_ms: int = 50) -> Generator[None]:
    """These nodes of an embedded fleet reach everybody else, and are reached, at this rate."""
    lines = [line for node in nodes for line in _ends(state, node)]
    bucket = f"tbf rate {mbit * 1000:.0f}kbit burst 128kb latency {queue_ms}ms".split()
    try:
        for prefix, device in lines:
            _tc(prefix, "replace", device, *bucket)
        yield
    finally:
        for prefix, device in lines:
            subprocess.run([*prefix, "tc", "qdisc", "del", "dev", device, "root"], capture_output=True)


def _ends(state: Path, node: str) -> list[tuple[list[str], str]]:
    plan = PLAN.validate_json((state / "fleet.json").read_bytes())
    holder = load(state / "run" / f"holder-{node}.pid")
    assert holder is not None, f"node {node} is not up"
    return [([], plan.node(node).veth), (["nsenter", "-t", str(holder.pid), "-n"], "eth0")]


def _tc(prefix: Sequence[str], verb: str, device: str, *words: str) -> None:
    done = subprocess.run(
        [*prefix, "tc", "qdisc", verb, "dev", device, "root", *words], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"tc on {device}: {done.stderr.strip()}")


def link_bytes(state: Path, node: str) -> int:
    """Bytes that the bridge has sent to a node since it is up."""
    plan = PLAN.validate_json((state / "fleet.json").read_bytes())
    shown = subprocess.run(
        ["ip", "-j", "-s", "link", "show", plan.node(node).veth], capture_output=True, text=True, check=True
    )
    return int(json.loads(shown.stdout)[0]["stats64"]["tx"]["bytes"])
