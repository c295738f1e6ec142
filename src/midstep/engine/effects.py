"""What the service shall do after a step was persisted. Each may be lost in a crash: `ControllerRestarted`
and the sweep of the vaults make up for it. What nodes shall do is no effect: it is `desired(record)`, at all
times."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CommitSnapshot:
    """Write the manifest of a snapshot whose parts are all in the vault of ``region``. That of a resize holds
    only the ranks that change nodes."""

    snapshot_id: str
    region: str
    job_id: str
    epoch: int
    nodes: int
    store: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class DeleteSnapshot:
    """Remove a snapshot, committed or not, from every vault."""

    snapshot_id: str


@dataclass(frozen=True, slots=True)
class Log:
    """One line of the fleet's history. ``kind``: submitted, asked, waiting, placed, state, step, snapshot,
    move, failure, exit, stall, node."""

    kind: str
    message: str
    node: str = ""
    duration_s: float | None = None
    nbytes: int | None = None


Effect = CommitSnapshot | DeleteSnapshot | Log
