"""Whether the members of an operation mean the same, and what to say if not."""

from __future__ import annotations

from midstep.proxy.groups import Group, Operation, agree, describe, disagreement
from midstep.wire.proxy import FLAG_BAD, Head


def objection(group: Group, op: Operation) -> str:
    """Why an operation, whose posts and frames are all here, cannot be carried out; empty: it can."""
    for node in group.remote:
        head, data = op.frames[node]
        if head.flags & FLAG_BAD:
            return data.tobytes().decode("utf-8", "replace")
    heads = [describe(post, group) for post in op.arrived.values()]
    heads += [head for head, _ in op.frames.values()]
    return "" if all(agree(heads[0], head) for head in heads) else contradiction(group, op)


def contradiction(group: Group, op: Operation) -> str:
    """Which ranks posted what."""
    said: dict[tuple[int, ...], Head] = {}
    for me, post in sorted(op.arrived.items()):
        head = describe(post, group)
        same = [members for members, other in said.items() if agree(head, other)]
        said[(*same[0], me) if same else (me,)] = said.pop(same[0]) if same else head
    for node, (head, _) in op.frames.items():
        said[group.remote[node]] = head
    return disagreement(group, op.seq, said)
