"""A record while one event is applied to it. Lives for one `step`; nothing outside this package sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from midstep.engine.deadlines import deadline_at_s
from midstep.engine.effects import DeleteSnapshot, Effect, Log
from midstep.engine.errors import IllegalMove
from midstep.engine.facets import NodeStep
from midstep.engine.record import JobRecord, Move
from midstep.model.job import Placement, SnapshotRef
from midstep.model.lifecycle import Stage, Trigger, next_stage
from midstep.model.phase import JobOnNode, Stall

_KEPT_MOVES = 100
_KEPT_CHECKPOINTS = 3
_KEPT_STEPS = 200
_KEPT_STORY = 30


class Draft:
    """The record as changed so far, and the effects so far."""

    def __init__(self, record: JobRecord, now_s: float) -> None:
        self.record = record
        self.now_s = now_s
        self.effects: list[Effect] = []

    def set(self, **changes: Any) -> None:
        """Change fields."""
        self.record = replace(self.record, **changes)

    def go(self, trigger: Trigger, **changes: Any) -> None:
        """Take an edge of the table; raises IllegalMove where there is none."""
        record = self.record
        try:
            stage = next_stage(record.stage, trigger)
        except KeyError:
            raise IllegalMove(record.job_id, record.stage, trigger, record.story) from None
        if stage not in (Stage.JOINING, Stage.RUNNING):
            self.drop_storing()
            record = self.record
        line = f"{self.now_s:.3f} epoch {record.epoch}: {record.stage} --{trigger}--> {stage}"
        story = (*record.story, line)[-_KEPT_STORY:]
        ran_s = self.now_s - record.stage_s if record.stage is Stage.RUNNING and record.stage_s else 0.0
        exposed_s = record.exposed_s + max(0.0, ran_s) * len(record.nodes)
        deadline_s = deadline_at_s(stage, self.now_s)
        self.set(stage=stage, stage_s=self.now_s, exposed_s=exposed_s, deadline_s=deadline_s, story=story)
        self.set(**changes)

    def under_new_epoch(
        self, trigger: Trigger, placement: Placement, source: SnapshotRef | None, **changes: Any
    ) -> None:
        """Take an edge that leads to HOLDING: everything said under the epoch before is void."""
        epoch = self.record.epoch + 1
        void: dict[str, object] = {"epoch": epoch, "reports": {}, "peers": (), "keeps": False}
        self.go(trigger, placement=placement, source=source, **{**void, **changes})

    def drop_storing(self) -> None:
        """A checkpoint that is on its way into the vault is given up: its parts are in the nodes' memory, and
        they have something else to do now."""
        storing = self.record.storing
        if storing is None:
            return
        self.set(storing=None)
        self.effects.append(DeleteSnapshot(storing.snapshot_id))
        if self.record.move is not None and self.record.move.kind == "checkpoint":
            self.end_move(ok=False, message="something else came before it was stored")

    def leave(self, trigger: Trigger, **changes: Any) -> None:
        """Take an edge after which every node shall remove what it has. Under an epoch of its own, so that a
        failure to do so cannot be mistaken for a failure of what was wanted before."""
        void: dict[str, object] = {"epoch": self.record.epoch + 1, "reports": {}, "peers": (), "keeps": False}
        self.go(trigger, **{**void, **changes})

    def log(
        self,
        kind: str,
        message: str,
        node: str = "",
        duration_s: float | None = None,
        nbytes: int | None = None,
    ) -> None:
        """Add a line to the fleet's history."""
        self.effects.append(Log(kind, message, node, duration_s, nbytes))

    def begin_move(self, kind: str) -> None:
        """A suspend, resume, migrate or reconnect starts. One that is under way has failed."""
        self.drop_storing()
        self.end_move(ok=False)
        self.set(move=Move(kind, self.now_s))

    def end_move(self, *, ok: bool, message: str = "") -> None:
        """The move under way, if any, is over."""
        move = self.record.move
        if move is None:
            return
        message = message or move.message
        done = replace(move, ended_s=self.now_s, ok=ok, message=message)
        self.set(move=None, moves=_kept((*self.record.moves, done)))
        words = "done" if ok else f"failed: {message}" if message else "was given up"
        duration_s = self.now_s - move.started_s
        self.effects.append(Log("move", f"{move.kind} {words}", "", duration_s, move.nbytes or None))

    def add_move(self, move: Move) -> None:
        """One that is over and was not a move of its own stage."""
        self.set(moves=_kept((*self.record.moves, move)))

    def change_move(self, **changes: Any) -> None:
        """Change the move under way, if any."""
        if self.record.move is not None:
            self.set(move=replace(self.record.move, **changes))

    def take_report(self, node: str, report: JobOnNode) -> None:
        """Keep a node's report of this epoch; its new steps and stalls enter the history."""
        before = self.record.reports.get(node)
        self.set(reports={**self.record.reports, node: report})
        gets_on = report.doing is not None and (before is None or before.doing != report.doing)
        if gets_on and self.record.stage is Stage.HOLDING:  # it may last: the agent bounds it
            self.set(deadline_s=deadline_at_s(self.record.stage, self.now_s))
        for timing in report.steps:
            self.add_step(NodeStep(node, timing))
        known = {_title(stall) for stall in before.stalls} if before else set[str]()
        for stall in report.stalls:
            if _title(stall) not in known:
                self.log("stall", _title(stall), node)

    def add_step(self, step: NodeStep) -> None:
        """Count one step once, however often it is reported."""
        if step in self.record.recent:
            return
        self.set(recent=(*self.record.recent, step)[-_KEPT_STEPS:])
        if self.record.move is not None:
            self.change_move(steps=(*self.record.move.steps, step))
        timing = step.timing
        words = timing.step + (f" ({sized(timing.known_bytes)} were there)" if timing.known_bytes else "")
        self.effects.append(Log("step", words, step.node, timing.duration_s, timing.nbytes))


def sized(nbytes: int) -> str:
    """Bytes in words."""
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"


def _kept(moves: tuple[Move, ...]) -> tuple[Move, ...]:
    """The newest moves; of checkpoints that went well, which may be taken every minute, only a few."""
    routine = [move for move in moves if move.kind == "checkpoint" and move.ok]
    old = {id(move) for move in routine[:-_KEPT_CHECKPOINTS]}
    return tuple(move for move in moves if id(move) not in old)[-_KEPT_MOVES:]


def _title(stall: Stall) -> str:
    posted, missing = (", ".join(map(str, ranks)) or "none" for ranks in (stall.posted, stall.missing))
    return f"{stall.operation} in group {stall.group} waits for ranks {missing}; posted by {posted}"
