"""A record while one event is applied to it. Lives for one `step`; nothing outside this package sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from midstep.engine.deadlines import deadline_at_s
from midstep.engine.effects import Effect, Log
from midstep.engine.errors import IllegalMove
from midstep.engine.record import JobRecord, Move, NodeStep
from midstep.model.job import Placement, SnapshotRef
from midstep.model.lifecycle import Trigger, next_stage
from midstep.model.phase import JobOnNode, Stall

_KEPT_MOVES = 100
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
        line = f"{self.now_s:.3f} epoch {record.epoch}: {record.stage} --{trigger}--> {stage}"
        story = (*record.story, line)[-_KEPT_STORY:]
        self.set(stage=stage, deadline_s=deadline_at_s(stage, self.now_s), story=story, **changes)

    def under_new_epoch(
        self, trigger: Trigger, placement: Placement, source: SnapshotRef | None, **changes: Any
    ) -> None:
        """Take an edge that leads to HOLDING: everything said under the epoch before is void."""
        epoch = self.record.epoch + 1
        self.go(trigger, epoch=epoch, placement=placement, source=source, reports={}, peers=(), **changes)

    def leave(self, trigger: Trigger, **changes: Any) -> None:
        """Take an edge after which every node shall remove what it has. Under an epoch of its own, so that a
        failure to do so cannot be mistaken for a failure of what was wanted before."""
        self.go(trigger, epoch=self.record.epoch + 1, reports={}, peers=(), **changes)

    def log(self, kind: str, message: str, node: str = "") -> None:
        """Add a line to the fleet's history."""
        self.effects.append(Log(kind, message, node))

    def begin_move(self, kind: str) -> None:
        """A suspend, resume, migrate or reconnect starts. One that is under way has failed."""
        self.end_move(ok=False)
        self.set(move=Move(kind, self.now_s))

    def end_move(self, *, ok: bool, message: str = "") -> None:
        """The move under way, if any, is over."""
        move = self.record.move
        if move is None:
            return
        message = message or move.message
        done = replace(move, ended_s=self.now_s, ok=ok, message=message)
        self.set(move=None, moves=(*self.record.moves, done)[-_KEPT_MOVES:])
        words = "done" if ok else f"failed: {message}" if message else "was given up"
        duration_s = self.now_s - move.started_s
        self.effects.append(Log("move", f"{move.kind} {words}", "", duration_s, move.nbytes or None))

    def change_move(self, **changes: Any) -> None:
        """Change the move under way, if any."""
        if self.record.move is not None:
            self.set(move=replace(self.record.move, **changes))

    def take_report(self, node: str, report: JobOnNode) -> None:
        """Keep a node's report of this epoch; its new steps and stalls enter the history."""
        before = self.record.reports.get(node)
        self.set(reports={**self.record.reports, node: report})
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
        self.effects.append(Log("step", timing.step, step.node, timing.duration_s, timing.nbytes))


def _title(stall: Stall) -> str:
    posted, missing = (", ".join(map(str, ranks)) or "none" for ranks in (stall.posted, stall.missing))
    return f"{stall.operation} in group {stall.group} waits for ranks {missing}; posted by {posted}"
