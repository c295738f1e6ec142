"""What a controller asks of the archiver process, and what that answers: JSON lines on its standard input and
output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from midstep.vault.archive.retention import Rule


@dataclass(frozen=True, slots=True)
class Orders:
    """One run. ``store``: snapshot -> why it was taken; ``generations``: job -> ours, of jobs that we own
    already; ``claim``: jobs to own besides; ``retain``: a rule a job; ``collect``: if it is worth it;
    ``mend``: snapshots that were found damaged."""

    store: dict[str, str] = field(default_factory=dict[str, str])
    generations: dict[str, int] = field(default_factory=dict[str, int])
    claim: tuple[str, ...] = ()
    retain: tuple[Rule, ...] = ()
    collect: bool = False
    mend: tuple[str, ...] = ()
    owner: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class News:
    """One line of the answer. ``what``: claimed, progress, archived, failed, forgotten, collected, mended;
    ``kind``: the error's class; bytes: as in `Stats`; ``again``: it was archived before."""

    what: str
    snapshot_id: str = ""
    job_id: str = ""
    generation: int = 0
    nbytes: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    done_bytes: int = 0
    duration_s: float = 0.0
    again: bool = False
    error: str = ""
    kind: str = ""


def to_json(value: Orders | News) -> str:
    """One line."""
    return json.dumps({k: v for k, v in asdict(value).items() if v not in ("", 0, False, (), {})})


def orders_of(text: str) -> Orders:
    """ValueError, TypeError: it is none."""
    raw: dict[str, Any] = json.loads(text)
    rules = tuple(Rule(r["job_id"], r["keep"], tuple(r["needed"])) for r in raw.pop("retain", ()))
    claim, mend = tuple(raw.pop("claim", ())), tuple(raw.pop("mend", ()))
    return Orders(claim=claim, mend=mend, retain=rules, **raw)


def news_of(text: str) -> News:
    """ValueError, TypeError: it is none."""
    return News(**json.loads(text))
