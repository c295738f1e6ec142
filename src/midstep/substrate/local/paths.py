"""Where everything of one embedded fleet lies. One state folder is one fleet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from midstep.client.locate import default_state

# The same inside every node, so that a process finds its files wherever it is.
INSIDE = Path("/run/midstep")
INSIDE_NODE = INSIDE / "node"
INSIDE_VAULT = INSIDE / "vault"
INSIDE_CELL = INSIDE / "cell"


@dataclass(frozen=True, slots=True)
class StatePaths:
    """The state folder's layout. ``root`` is resolved: it names the fleet on this machine."""

    root: Path

    @classmethod
    def at(cls, folder: Path | None) -> StatePaths:
        """The layout below a folder; None: the default one."""
        return cls((folder or default_state()).expanduser().resolve())

    @property
    def fleet(self) -> Path:
        """The plan; its presence makes the folder a fleet's."""
        return self.root / "fleet.json"

    @property
    def client(self) -> Path:
        """Where the fleet is, and its token: what the client reads. Mode 600."""
        return self.root / "client.json"

    @property
    def lock(self) -> Path:
        """Held by `up` and `down`, one at a time."""
        return self.root / "lock"

    @property
    def run(self) -> Path:
        """Process files, generated configurations and logs; may be deleted while the fleet is down."""
        return self.root / "run"

    @property
    def controller(self) -> Path:
        """The controller's journal and database."""
        return self.root / "controller"

    def controller_of(self, region: str) -> Path:
        """The same of a region's own controller."""
        return self.root / f"controller-{region}"

    @property
    def centre(self) -> Path:
        """What the global controller keeps."""
        return self.root / "global"

    @property
    def nodes(self) -> Path:
        """One folder a node."""
        return self.root / "nodes"

    def node(self, name: str) -> Path:
        """A node's own state: inside it is INSIDE_NODE."""
        return self.nodes / name

    def vault(self, region: str) -> Path:
        """A region's vault: inside its nodes it is INSIDE_VAULT."""
        return self.root / "vaults" / region

    def hosts(self, node: str) -> Path:
        """The node's /etc/hosts."""
        return self.run / f"{node}.hosts"

    def process(self, name: str) -> Path:
        """The process file of `supervisor`, `controller`, `agent-NODE` or `holder-NODE`."""
        return self.run / f"{name}.pid"

    def log(self, name: str) -> Path:
        """The output of such a process."""
        return self.run / f"{name}.log"

    def config(self, name: str) -> Path:
        """The configuration file of such a process."""
        return self.run / f"{name}.json"

    def supervisor_lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.run / "supervisor.lock"

    def strangers(self) -> list[str]:
        """What is in the folder and not a fleet's."""
        own = {p.name for p in (self.fleet, self.client, self.lock, self.run, self.controller, self.nodes)}
        own |= {"global", *(p.name for p in self.root.glob("controller-*"))}
        own |= {"vaults", self.fleet.with_suffix(".partial").name, self.client.with_suffix(".partial").name}
        return sorted(p.name for p in self.root.iterdir() if p.name not in own)

    def make(self) -> None:
        """Create the folders. The root is closed to other users: it holds the token and all jobs' files."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (self.run, self.controller, self.nodes):
            folder.mkdir(exist_ok=True)
