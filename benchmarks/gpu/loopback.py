"""A controller and agents of this checkout on loopback: nodes are mount namespaces and nothing more.

What `midstep up` builds needs a kernel with bridges; a rented GPU machine may have none.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import midstep
from midstep.agent.install.criu_find import find_criu
from midstep.client.fleet import FleetClient
from midstep.client.locate import Address
from midstep.model.fleet import Device

TOKEN = "benchmark"
_FURNISH = """
mount --make-rprivate / && mkdir -p /run/midstep && mount -t tmpfs none /run/midstep &&
mkdir /run/midstep/node /run/midstep/vault /run/midstep/cell && mount --bind "$1" /run/midstep/node &&
mount --bind "$2" /run/midstep/vault && echo ready && exec sleep 100000
"""


class Node:
    """A holder of a mount namespace, and the agent in it."""

    def __init__(self, root: Path, name: str, devices: tuple[Device, ...], url: str) -> None:
        self.state, vault = root / name, root / "vault"
        self.state.mkdir()
        vault.mkdir(exist_ok=True)
        found = find_criu()
        config = {
            "name": name,
            "region": "here",
            "address": "127.0.0.1",
            "devices": [asdict(device) for device in devices],
            "controller": url,
            "token": TOKEN,
            "state_dir": "/run/midstep/node",
            "vault_dir": "/run/midstep/vault",
            "inject": str(Path(midstep.__path__[0]) / "runtime" / "inject"),
            "criu": str(found.path) if found else None,
        }
        self._config, self._log = config, root / f"{name}.log"
        furnish = ["unshare", "-m", "sh", "-c", _FURNISH, "sh", str(self.state), str(vault)]
        self.holder = subprocess.Popen(furnish, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None and self.holder.stdout.readline() == b"ready\n"
        self.agent = self._start("")

    def restart(self, crash_at: str = "") -> None:
        """Kill the agent, if it lives, and start another one, which may be told where to die."""
        self.agent.kill()
        self.agent.wait()
        self.agent = self._start(crash_at)

    def _start(self, crash_at: str) -> subprocess.Popen[bytes]:
        (self.state / "agent.json").write_text(json.dumps({**self._config, "crash_at": crash_at}))
        program = [sys.executable, "-m", "midstep.app.agent", "--config", "/run/midstep/node/agent.json"]
        return start(["nsenter", "-t", str(self.holder.pid), "-m", "--", *program], self._log)

    def end(self) -> None:
        """Kill everything that lives in the node's mounts or in copies of them."""
        self.agent.kill()
        for _ in range(3):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    if os.path.samefile(f"/proc/{pid}/root/run/midstep/node", self.state):
                        os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    continue
        self.holder.wait()


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    source = str(Path(midstep.__path__[0]).parent)
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=env, start_new_session=True)


@dataclass
class Fleet:
    client: FleetClient
    nodes: dict[str, Node]


@contextmanager
def fleet(root: Path, nodes: Mapping[str, tuple[Device, ...]], wait_s: float = 60.0) -> Generator[Fleet]:
    """A fleet of these nodes in the empty folder `root`, connected. RuntimeError: it did not come up."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "state_dir": str(root / "controller"),
        "fleet": "gpu",
        "token": TOKEN,
        "host": "127.0.0.1",
        "port": port,
        "regions": {"here": str(root / "vault")},
    }
    for name in ("controller", "vault"):
        (root / name).mkdir()
    (root / "controller.json").write_text(json.dumps(config))
    program = [sys.executable, "-m", "midstep.app.controller", "--config", str(root / "controller.json")]
    controller, made = start(program, root / "controller.log"), []
    try:
        url = f"http://127.0.0.1:{port}"
        made = [Node(root, name, devices, url) for name, devices in nodes.items()]
        with FleetClient(Address(url, TOKEN, "gpu"), patience_s=wait_s) as client:
            end_s = time.monotonic() + wait_s
            while client.health().nodes_connected < len(nodes):
                if time.monotonic() > end_s:
                    raise RuntimeError("\n".join(log.read_text()[-1500:] for log in root.glob("*.log")))
                time.sleep(0.2)
            yield Fleet(client, dict(zip(nodes, made, strict=True)))
    finally:
        for node in made:
            node.end()
        controller.kill()
        controller.wait()
