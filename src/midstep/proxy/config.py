"""How a proxy is started."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """One proxy of one job on one node, under one epoch."""

    job_id: str
    epoch: int
    index: int  # this node's among the job's nodes
    world_size: int
    listen_host: str
    store_path: str
    leader: bool  # keeps the job's store
    run_dirs: tuple[str, ...] = ()  # hint directories, as the proxy sees them
    store: dict[str, bytes] = field(default_factory=dict[str, bytes])  # a leader's; empty: read store_path
    threads: int = 1  # for one large reduction
    # which devices each rank of this node uses
    devices: dict[int, tuple[int, ...]] = field(default_factory=dict[int, tuple[int, ...]])
    # whether ranks that share one compute one at a time; a GPU is shared by its driver
    take_turns: bool = True


def to_line(config: ProxyConfig) -> bytes:
    """As one line."""
    data = asdict(config)
    data["store"] = {key: value.decode("latin-1") for key, value in config.store.items()}
    return json.dumps(data).encode() + b"\n"


def from_line(line: bytes) -> ProxyConfig:
    """The inverse of ``to_line``."""
    data = json.loads(line)
    data["run_dirs"] = tuple(data["run_dirs"])
    data["devices"] = {int(rank): tuple(indices) for rank, indices in data["devices"].items()}
    data["store"] = {key: value.encode("latin-1") for key, value in data["store"].items()}
    return ProxyConfig(**data)
