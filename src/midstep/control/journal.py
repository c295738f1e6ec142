"""The controller's memory: one SQLite file. A step is one transaction, so a kill at any instant leaves the
state that the last commit says.

    journal  append-only: every event that changed a job
    jobs     the current record of every job
    nodes    every node that ever joined
    events   the fleet's history, as users see it
    metrics  what was measured of each job, as of a while ago
    notes    what was said of nodes and projects, and what jobs have received: kind, name -> JSON
    decisions  what the scheduler decided about each job, when that changed, and why
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from midstep.control.errors import StateError
from midstep.control.metrics import Kept
from midstep.control.scheduling.decisions import Decision
from midstep.engine.effects import Log
from midstep.engine.events import Event
from midstep.engine.record import JobRecord
from midstep.model.fleet import Node, NodeStatus
from midstep.wire.api import EventView
from midstep.wire.schedule import DecisionView

SCHEMA = 1
_TABLES = """
CREATE TABLE journal (number INTEGER PRIMARY KEY, at_s REAL, job_id TEXT, version INTEGER, event TEXT, body
TEXT); CREATE TABLE jobs (job_id TEXT PRIMARY KEY, name TEXT, submitted_s REAL, record TEXT);
CREATE TABLE nodes (name TEXT PRIMARY KEY, last_seen_s REAL, node TEXT);
CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL, job_id TEXT, node TEXT, kind TEXT,
                     message TEXT, duration_s REAL, nbytes INTEGER);
CREATE INDEX events_of_job ON events (job_id, number);
"""
# Beside the format above: tables that a database of before gets when it is opened.
_LATER = """
CREATE TABLE IF NOT EXISTS metrics (job_id TEXT PRIMARY KEY, body TEXT);
CREATE TABLE IF NOT EXISTS notes (kind TEXT, name TEXT, body TEXT, PRIMARY KEY (kind, name));
CREATE TABLE IF NOT EXISTS decisions (number INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL, job_id TEXT,
                                      action TEXT, reason TEXT, message TEXT, facts TEXT);
CREATE INDEX IF NOT EXISTS decisions_of_job ON decisions (job_id, number);
CREATE INDEX IF NOT EXISTS events_by_time ON events (at_s);
"""
_RECORD = TypeAdapter(JobRecord)
KEPT = TypeAdapter(Kept)
_NODE = TypeAdapter(Node)
_adapter: Callable[[type[Any]], TypeAdapter[Any]] = cache(TypeAdapter)  # making one takes milliseconds
_COLUMNS = "number, at_s, job_id, node, kind, message, duration_s, nbytes"


class Journal:
    """Use it from one thread. Every method may raise StateError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._guarded():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
            elif version != SCHEMA:
                raise StateError(f"{path} has format {version}, this version of Midstep reads {SCHEMA}")
            self._db.executescript(_LATER)

    def close(self) -> None:
        """Flush and close."""
        self._db.close()

    def commit(
        self, at_s: float, record: JobRecord, event: Event | None, logs: Iterable[Log], *, synced: bool = True
    ) -> None:
        """One step of one job: its event, its record and its lines of history, or nothing of them. ``event``
        None: only the lines. ``synced``: it outlives a loss of power, with all that was committed before;
        otherwise only a kill."""
        with self._guarded(), self._transaction(synced):
            if event is not None:
                body = _adapter(type(event)).dump_json(event).decode()
                row = (at_s, record.job_id, record.version, type(event).__name__, body)
                self._db.execute(
                    "INSERT INTO journal (at_s, job_id, version, event, body) VALUES (?, ?, ?, ?, ?)", row
                )
                row = (
                    record.job_id,
                    record.spec.name,
                    record.submitted_s,
                    _RECORD.dump_json(record).decode(),
                )
                self._db.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?)", row)
            self._add_events(at_s, record.job_id, logs)

    def note(self, at_s: float, log: Log) -> None:
        """A line of history that belongs to no job."""
        with self._guarded(), self._transaction(synced=False):
            self._add_events(at_s, "", [log])

    def records(self) -> list[JobRecord]:
        """All jobs, in the order in which they were submitted."""
        with self._guarded():
            rows = self._db.execute("SELECT job_id, record FROM jobs ORDER BY submitted_s, job_id").fetchall()
        try:
            return [_RECORD.validate_json(record) for _, record in rows]
        except ValidationError as error:
            raise StateError(f"{self._path} holds a job that this version cannot read: {error}") from None

    def save_node(self, status: NodeStatus) -> None:
        """Remember a node."""
        row = (status.node.name, status.last_seen_s, _NODE.dump_json(status.node).decode())
        with self._guarded():
            self._db.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)", row)

    def nodes(self) -> list[NodeStatus]:
        """All nodes that ever joined, as not connected."""
        with self._guarded():
            rows = self._db.execute("SELECT node, last_seen_s FROM nodes ORDER BY name").fetchall()
        return [NodeStatus(_NODE.validate_json(node), False, last_seen_s) for node, last_seen_s in rows]

    def save_metrics(self, job_id: str, kept: Kept) -> None:
        """Remember what was measured of a job."""
        row = (job_id, KEPT.dump_json(kept).decode())
        with self._guarded():
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("INSERT OR REPLACE INTO metrics VALUES (?, ?)", row)

    def metrics(self) -> dict[str, Kept]:
        """What was measured, by job; what another version wrote and this one cannot read is left out."""
        with self._guarded():
            rows = self._db.execute("SELECT job_id, body FROM metrics").fetchall()
        found: dict[str, Kept] = {}
        for job_id, body in rows:
            with suppress(ValidationError):
                found[job_id] = KEPT.validate_json(body)
        return found

    def save_note(self, kind: str, name: str, body: str | None, *, synced: bool = True) -> None:
        """Remember what was said, as JSON; None: forget it. ``synced`` as in `commit`."""
        with self._guarded(), self._transaction(synced):
            if body is None:
                self._db.execute("DELETE FROM notes WHERE kind = ? AND name = ?", (kind, name))
            else:
                self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (kind, name, body))

    def notes(self, kind: str) -> dict[str, str]:
        """Everything of a kind, by name."""
        with self._guarded():
            query = "SELECT name, body FROM notes WHERE kind = ? ORDER BY name"
            return dict(self._db.execute(query, (kind,)).fetchall())

    def decide(self, at_s: float, job_id: str, made: Decision, *, anew: bool) -> None:
        """Write down a decision; not ``anew``: the job's last one, with other figures."""
        row = (made.message, json.dumps(dict(made.facts)), job_id)
        with self._guarded(), self._transaction(synced=False):
            if not anew:
                last = "(SELECT MAX(number) FROM decisions WHERE job_id = ?)"
                query = f"UPDATE decisions SET message = ?, facts = ? WHERE number = {last}"
                self._db.execute(query, row)
                return
            names = "at_s, action, reason, message, facts, job_id"
            self._db.execute(
                f"INSERT INTO decisions ({names}) VALUES (?, ?, ?, ?, ?, ?)",
                (at_s, made.action, made.reason, *row),
            )

    def decisions(self, job_id: str, limit: int) -> list[DecisionView]:
        """The newest about a job, oldest first; each held until the next one."""
        names = "at_s, action, reason, message, facts"
        query = f"SELECT {names} FROM decisions WHERE job_id = ? ORDER BY number DESC LIMIT ?"
        with self._guarded():
            rows = self._db.execute(query, (job_id, limit)).fetchall()
            return [
                DecisionView(at_s, action, reason, message, json.loads(facts))
                for at_s, action, reason, message, facts in reversed(rows)
            ]

    def events(self, job_id: str | None, after: float, limit: int, *, by: str = "number") -> list[EventView]:
        """The history after an event's number (``by`` "at_s": after a time), oldest first."""
        where, arguments = ("AND job_id = ?", (after, job_id, limit)) if job_id else ("", (after, limit))
        query = f"SELECT {_COLUMNS} FROM events WHERE {by} > ? {where} ORDER BY {by}, number LIMIT ?"
        with self._guarded():
            return [EventView(*row) for row in self._db.execute(query, arguments)]

    def _add_events(self, at_s: float, job_id: str, logs: Iterable[Log]) -> None:
        rows = [(at_s, job_id, log.node, log.kind, log.message, log.duration_s, log.nbytes) for log in logs]
        names = _COLUMNS.removeprefix("number, ")
        self._db.executemany(f"INSERT INTO events ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _transaction(self, synced: bool) -> Generator[None]:
        self._db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _guarded(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.Error, json.JSONDecodeError) as error:
            raise StateError(f"the controller's database {self._path} cannot be used: {error}") from error
