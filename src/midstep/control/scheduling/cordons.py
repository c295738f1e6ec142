"""Nodes where nothing new is placed, and those that are being emptied; kept in the database."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from midstep.control.errors import Rejected, StateError
from midstep.control.journal import Journal

_KIND = "node"


@dataclass(frozen=True, slots=True)
class Drain:
    """Everything shall leave a node. ``deadline_s``: wall clock; then what is left is suspended. ``jobs``:
    those that were there when it began."""

    since_s: float
    deadline_s: float | None = None
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cordon:
    """What was said of a node. A drained node stays cordoned."""

    since_s: float
    drain: Drain | None = None


_CORDON = TypeAdapter(Cordon)


class Cordons:
    """Nodes by name."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        try:
            self._all = {name: _CORDON.validate_json(body) for name, body in journal.notes(_KIND).items()}
        except ValidationError as error:
            raise StateError(f"a node's note cannot be read by this version: {error}") from None

    @property
    def names(self) -> tuple[str, ...]:
        """Nodes that take nothing new."""
        return tuple(sorted(self._all))

    @property
    def drains(self) -> dict[str, Drain]:
        """Nodes that everything shall leave."""
        return {name: said.drain for name, said in sorted(self._all.items()) if said.drain is not None}

    def refuse(self, node: str) -> None:
        """Raises Rejected: it takes nothing new."""
        if node in self._all:
            hint = f"`midstep uncordon {node}` lets it take jobs again"
            raise Rejected(409, "node_cordoned", f"node {node} is cordoned: it takes nothing new", "", hint)

    def put(self, name: str, now_s: float, drain: Drain | None = None) -> None:
        """Cordon a node, and empty it if ``drain`` is given. Raises StateError."""
        before = self._all.get(name)
        made = Cordon(before.since_s if before else now_s, drain or (before.drain if before else None))
        self._journal.save_note(_KIND, name, _CORDON.dump_json(made).decode())
        self._all[name] = made

    def lift(self, name: str) -> None:
        """Let a node take jobs again. Raises StateError."""
        self._journal.save_note(_KIND, name, None)
        self._all.pop(name, None)
