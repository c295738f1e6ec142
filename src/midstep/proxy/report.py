"""What a proxy says about itself: what is pending, for how long, who posted it and who did not."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from midstep.mailbox.contract import DType, Kind
from midstep.proxy.boxes import Posted
from midstep.proxy.engine import Engine
from midstep.proxy.groups import Group, describe, words
from midstep.proxy.seats import RankCounters


@dataclass(frozen=True, slots=True)
class PendingOp:
    """An operation (or SEND, or RECV) that waits. Ranks are ranks of ``world``."""

    world: str
    group: str
    seq: int
    what: str  # kind, bytes, dtype in words
    kind: str
    dtype: str
    count_bytes: int
    waiting_s: float
    posted: tuple[int, ...]  # ranks known to have posted it
    missing: tuple[int, ...]  # ranks of this node that have not
    unknown: tuple[int, ...]  # ranks of other nodes, not all of which have: ask those nodes' proxies


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """A proxy's state and its sums since it began."""

    index: int
    mailboxes: int
    groups: int
    links: tuple[int, ...]  # nodes that are connected
    pending: tuple[PendingOp, ...]
    store_waits: int
    counters: dict[str, float] = field(default_factory=dict[str, float])
    ranks: tuple[RankCounters, ...] = ()


@dataclass(frozen=True, slots=True)
class Drained:
    """A cut is taken on this node. ``store`` is the leader's, else None."""

    store: dict[str, bytes] | None
    pending: tuple[PendingOp, ...]
    punched_bytes: int
    duration_s: float


def status(engine: Engine) -> ProxyStatus:
    """What is going on; in the engine's thread."""
    return ProxyStatus(
        engine.index,
        len(engine.boxes),
        len(engine.membership.groups),
        tuple(sorted(engine.wires.links)),
        pending(engine),
        engine.requests.pending,
        engine.counters.sums(),
        engine.seats.counters(),
    )


def pending(engine: Engine) -> tuple[PendingOp, ...]:
    """Everything that waits, oldest first."""
    found = [
        one for group in engine.membership.groups.values() for one in (*_collectives(group), *_pairs(group))
    ]
    return tuple(sorted(found, key=lambda one: -one.waiting_s))


def _collectives(group: Group) -> Iterable[PendingOp]:
    seen: set[int] = set()
    for op in group.ops.values():
        if op.done or op.seq in seen:
            continue
        seen.add(op.seq)
        if op.arrived:
            head = describe(next(iter(op.arrived.values())), group)
        elif op.frames:
            head = next(iter(op.frames.values()))[0]
        else:
            continue
        away = [me for node in op.frames for me in group.remote[node]]
        unknown = [me for node, members in group.remote.items() if node not in op.frames for me in members]
        yield PendingOp(
            group.world,
            group.name,
            op.seq,
            _words_of_all(group, op.arrived) or words(head),
            Kind(head.kind).name,
            DType(head.dtype).name,
            head.total,
            time.monotonic() - op.since_s,
            _ranks(group, [*op.arrived, *away]),
            _ranks(group, [me for me in group.local if me not in op.arrived]),
            _ranks(group, unknown),
        )


def _words_of_all(group: Group, arrived: Mapping[int, Posted]) -> str:
    """What the ranks here have posted, by rank where they do not agree."""
    by_words: dict[str, list[int]] = {}
    for me, post in sorted(arrived.items()):
        by_words.setdefault(words(describe(post, group)), []).append(me)
    if len(by_words) < 2:
        return "".join(by_words)
    by_ranks = ((text, ", ".join(map(str, _ranks(group, ranks)))) for text, ranks in by_words.items())
    return "; ".join(f"{text} by ranks {ranks}" for text, ranks in by_ranks)


def _pairs(group: Group) -> Iterable[PendingOp]:
    for receiver, posts in group.wanted.items():
        for post in posts:
            sender = post.body.peer
            name = "any rank" if sender < 0 else f"rank {group.ranks[sender]}"
            text = f"RECV of {post.body.total} bytes from {name}, tag {post.body.tag}"
            others = [sender] if sender >= 0 else []
            yield _pair(group, text, post.body.seq, "RECV", post.body.total, 0.0, receiver, others)
    for offer in group.offers.values():
        head = offer.head
        text = f"SEND of {head.total} bytes to rank {group.ranks[head.peer]}, tag {head.tag}"
        waited_s = time.monotonic() - offer.since_s
        yield _pair(group, text, head.seq, "SEND", head.total, waited_s, head.root, [head.peer])
    for post in group.sent.values():
        body = post.body
        text = f"SEND of {body.total} bytes to rank {group.ranks[body.peer]}, tag {body.tag}"
        yield _pair(group, text, body.seq, "SEND", body.total, 0.0, post.me, [body.peer])


def _pair(
    group: Group, text: str, seq: int, kind: str, total: int, waited_s: float, me: int, others: list[int]
) -> PendingOp:
    near = [other for other in others if other in group.local]
    far = [other for other in others if other not in group.local]
    ranks = (_ranks(group, [me]), _ranks(group, near), _ranks(group, far))
    return PendingOp(group.world, group.name, seq, text, kind, "uint8", total, waited_s, *ranks)


def _ranks(group: Group, members: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(group.ranks[me] for me in members))


def to_json(value: ProxyStatus | Drained) -> dict[str, Any]:
    """For the control connection; store values as latin-1 text."""
    data: dict[str, Any] = asdict(value)
    if isinstance(value, Drained) and value.store is not None:
        data["store"] = {key: text.decode("latin-1") for key, text in value.store.items()}
    return data


def pending_from(data: list[dict[str, Any]]) -> tuple[PendingOp, ...]:
    """The inverse of ``to_json`` for pending operations."""
    found: list[PendingOp] = []
    for one in data:
        values: dict[str, Any] = dict(one)
        for key in ("posted", "missing", "unknown"):
            values[key] = tuple(values[key])
        found.append(PendingOp(**values))
    return tuple(found)


def status_from(data: dict[str, Any]) -> ProxyStatus:
    """The inverse of ``to_json``."""
    values: dict[str, Any] = dict(data)
    values["links"] = tuple(values["links"])
    values["pending"] = pending_from(values["pending"])
    values["ranks"] = tuple(RankCounters(**one) for one in values["ranks"])
    return ProxyStatus(**values)


def drained_from(data: dict[str, Any]) -> Drained:
    """The inverse of ``to_json``."""
    store: dict[str, str] | None = data["store"]
    return Drained(
        None if store is None else {key: text.encode("latin-1") for key, text in store.items()},
        pending_from(data["pending"]),
        data["punched_bytes"],
        data["duration_s"],
    )
