"""Collection: what no manifest refers to is removed. Plan, show, execute.

A plan reads; `execute` takes the collector's lease (leases.py), looks again, and does what was planned *and*
still holds. The order leaves every crash point safe: chunks that stay are copied and indexed before their
packs go, and a pack goes from the indexes before it goes itself; so a kill leaves bytes too many, never too
few, and the next collection finishes the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midstep.vault.archive.archive import Archive
from midstep.vault.archive.leases import collecting, void_leases
from midstep.vault.errors import Damaged, FormatUnknown, SnapshotMissing
from midstep.vault.faults import pass_point
from midstep.vault.store.content import ChunkId, PackInfo

REPACK_SHARE = 0.5  # of a pack that is dead: then copying the rest costs less than what it frees
WORTH_SHARE = 0.2
WORTH_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection would do. Names of packs, and stored bytes."""

    drop: tuple[str, ...]  # nothing in them is needed
    repack: tuple[str, ...]  # what is needed of them is copied
    orphans: tuple[str, ...]  # no index names them: left by writers that were killed
    snapshots: int
    total_bytes: int  # of all packs
    dead_bytes: int  # of chunks that no snapshot needs, wherever they are
    freed_bytes: int  # by this plan
    leases: tuple[str, ...] = ()  # of writers and collectors that were killed

    @property
    def worth_it(self) -> bool:
        """Whether a collection nobody asked for should be made."""
        return self.freed_bytes > max(WORTH_BYTES, WORTH_SHARE * self.total_bytes)

    @property
    def empty(self) -> bool:
        """There is nothing to do."""
        return not (self.drop or self.repack or self.orphans or self.leases)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did."""

    packs: int  # removed
    freed_bytes: int  # of them, less what was copied


def plan(archive: Archive) -> Plan:
    """Look. ManifestDamaged, FormatUnknown: a snapshot's manifest cannot be read, so nobody knows what it
    needs."""
    archive.repository.refresh()
    return _plan(archive)[0]


def execute(archive: Archive, planned: Plan, progress: Callable[[int, int], None] | None = None) -> Collected:
    """Do it. ``progress``: packs done, of how many. Busy: somebody stores or collects; as `plan` does."""
    with collecting(archive.backend, archive.clock, archive.ids):
        pass_point("gc:locked")
        archive.repository.refresh()
        now, live = _plan(archive)
        pass_point("gc:marked")
        return _sweep(archive, planned, now, live, progress or (lambda done, total: None))


def needed(archive: Archive) -> tuple[set[ChunkId], int]:
    """The chunks that any snapshot needs, and the number of snapshots."""
    live: set[ChunkId] = set()
    names = archive.snapshot_ids()
    for snapshot_id in names:
        try:
            live.update(archive.load(snapshot_id).ids())
        except SnapshotMissing:  # forgotten meanwhile
            continue
        except (Damaged, FormatUnknown) as error:
            words = f"nothing is collected while nobody knows what snapshot {snapshot_id} needs: {error}"
            hint = "delete it if it is of no use: `midstep vault rm`"
            raise type(error)(f"{words}; {hint}") from None
    return live, len(names)


def _plan(archive: Archive) -> tuple[Plan, set[ChunkId]]:
    live, snapshots = needed(archive)
    if archive.repository.missing(live):  # a lost index must not make packs that are needed look like orphans
        archive.repository.heal()
    drop: list[str] = []
    repack: list[str] = []
    total = dead = freed = 0
    for pack in archive.repository.packs():
        lost = sum(chunk.stored for chunk in pack.chunks if not _is_live(archive, live, chunk.chunk, pack))
        total, dead = total + pack.size, dead + lost
        kept = sum(chunk.stored for chunk in pack.chunks) - lost
        if kept == 0:
            drop.append(pack.name)
            freed += pack.size
        elif lost >= REPACK_SHARE * pack.size:
            repack.append(pack.name)
            freed += lost
    orphans = archive.repository.orphans()
    sizes = {info.name: info.size for info in archive.backend.list("packs")}
    left = sum(sizes.get(name, 0) for name in orphans)
    sums = (total + left, dead + left, freed + left)
    leases = tuple(void_leases(archive.backend, archive.clock))
    found = Plan(tuple(drop), tuple(repack), tuple(orphans), snapshots, *sums, leases)
    return found, live


def _is_live(archive: Archive, live: set[ChunkId], chunk: ChunkId, pack: PackInfo) -> bool:
    """A chunk that is stored twice lives only where it is read from."""
    if chunk not in live:
        return False
    stored = archive.repository.find(chunk)
    return stored is not None and stored.pack == pack.name


def _sweep(
    archive: Archive, planned: Plan, now: Plan, live: set[ChunkId], report: Callable[[int, int], None]
) -> Collected:
    repack = sorted(set(planned.repack) & set(now.repack))
    doomed = [*sorted(set(planned.drop) & set(now.drop)), *sorted(set(planned.orphans) & set(now.orphans))]
    sizes = {info.name: info.size for info in archive.backend.list("packs")}
    freed = sum(sizes.get(name, 0) for name in (*repack, *doomed))
    total = len(repack) + len(doomed)
    if repack:
        freed -= archive.repository.repack(repack, lambda it: it.chunk in live, doomed).stored_bytes
    pass_point("gc:repacked")
    report(len(repack), total)
    half = len(doomed) // 2
    for some in (doomed[:half], doomed[half:]):
        if some:
            archive.repository.forget(some)
        pass_point("gc:midway")
    report(total, total)
    pass_point("gc:after")
    return Collected(total, max(0, freed))
