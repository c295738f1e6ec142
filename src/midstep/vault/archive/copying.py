"""A snapshot from one archive to another that the same process can open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midstep.vault.archive.archive import Archive
from midstep.vault.archive.leases import Lease
from midstep.vault.archive.shipping import Shipped, receive
from midstep.vault.errors import Damaged

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """What travelled. ``again``: the snapshot was there already."""

    chunks: int = 0
    sent_bytes: int = 0
    again: bool = False


def copy(source: Archive, snapshot_id: str, target: Archive, progress: Report | None = None) -> Copied:
    """Have a snapshot in another archive, too; again: nothing. ``progress``: plain bytes that came, of how
    many.

    SnapshotMissing, Damaged: the source lacks it; Busy: one of them is being collected; LeaseLost.
    """
    archived = source.load(snapshot_id)
    total = 0

    def report(now: Shipped) -> None:
        nonlocal total
        total = max(total, now.left_bytes)
        if progress is not None:
            progress(total - now.left_bytes, total)

    try:
        with Lease(source.backend, source.clock, source.ids) as lease:  # what we read must not be collected
            source.catch_up(lease)
            done = receive(target, archived, source.repository.export, report)
    except Damaged as error:
        raise Damaged(
            f"snapshot {snapshot_id} cannot be copied from {source.backend.describe()}: {error}; `midstep "
            "vault check --deep` names all that is damaged"
        ) from error
    return Copied(done.chunks, done.sent_bytes, done.again)
