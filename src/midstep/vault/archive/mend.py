"""What is damaged is taken out of the indexes, so that nothing new relies on it: a snapshot that holds the
same memory stores it again, and thereby makes the older ones whole, too.

Without this, a damaged chunk would be "known", and every later snapshot would be as damaged as the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from midstep.vault.archive.archive import Archive
from midstep.vault.archive.leases import collecting
from midstep.vault.errors import Damaged, FormatUnknown, SnapshotMissing
from midstep.vault.store.content import ChunkId, PackInfo, Stored


@dataclass(frozen=True, slots=True)
class Mended:
    """One pack: what was whole is in another one now. ``lost``: chunks that were not."""

    pack: str
    kept: int
    lost: int


def mend(
    archive: Archive,
    snapshot_ids: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Mended]:
    """Read every pack that these snapshots need (None: all there are) and replace those that are damaged.
    ``progress``: packs read, of how many. Busy: somebody stores or collects."""
    with collecting(archive.backend, archive.clock, archive.ids):
        repository = archive.repository
        repository.refresh()
        if snapshot_ids is None:
            repository.heal()
        needed = None if snapshot_ids is None else _needed(archive, snapshot_ids)
        packs = [pack for pack in repository.packs() if needed is None or _holds(pack, needed)]
        done: list[Mended] = []
        whole: set[Stored] = set()
        for number, pack in enumerate(packs):
            if progress is not None:
                progress(number, len(packs))
            if repository.verify(pack.name):
                kept = [
                    it
                    for it, is_whole in zip(pack.chunks, repository.whole(pack.name, pack.chunks))
                    if is_whole
                ]
                whole.update(kept)
                done.append(Mended(pack.name, len(kept), len(pack.chunks) - len(kept)))
        if done:  # all at once: what is damaged in one may be whole in another
            repository.repack([pack.pack for pack in done], whole.__contains__)
        return done


def _needed(archive: Archive, snapshot_ids: Collection[str]) -> set[ChunkId]:
    needed: set[ChunkId] = set()
    for snapshot_id in snapshot_ids:
        with contextlib.suppress(SnapshotMissing, Damaged, FormatUnknown):  # then it needs nothing any more
            needed.update(archive.load(snapshot_id).ids())
    return needed


def _holds(pack: PackInfo, needed: set[ChunkId]) -> bool:
    return any(stored.chunk in needed for stored in pack.chunks)
