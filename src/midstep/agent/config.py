"""What an agent is told at its start: one JSON file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from midstep.agent.errors import ConfigError
from midstep.agent.faults import POINTS
from midstep.model.fleet import Device, Node


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """``state_dir`` is the node's own; its path must be the same on every node that a job may move to (the
    agent's mount namespace binds each node's folder there). ``vault_dir`` is shared by the nodes of the
    region."""

    name: str
    region: str
    address: str  # the node's own: its proxies listen there
    devices: tuple[Device, ...]
    controller: str  # http://HOST:PORT
    token: str
    state_dir: Path
    vault_dir: Path
    inject: Path  # the folder whose sitecustomize the ranks' interpreters load
    criu: Path | None = None  # None: freeze in place
    passthrough: tuple[str, ...] = ()  # names below /tmp that ranks must find, beside those found out
    cluster: str = "main"
    spot: bool = False  # the node may be taken away at short notice
    crash_at: str = ""  # tests: a point of faults.POINTS at which the agent kills itself

    @property
    def node(self) -> Node:
        """This node as the controller knows it."""
        return Node(
            self.name,
            self.region,
            self.address,
            self.devices,
            self.cluster,
            freezes_in_place=self.criu is None,
            spot=self.spot,
        )


_ADAPTER = TypeAdapter(AgentConfig)


def load(path: Path) -> AgentConfig:
    """Read and check a configuration file; raises ConfigError."""
    try:
        config = _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the agent's configuration {path}: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path} is not an agent's configuration: {problems}") from error
    if config.crash_at and config.crash_at not in POINTS:
        raise ConfigError(f"{path}: crash_at is {config.crash_at!r}, which is none of {', '.join(POINTS)}")
    return config
