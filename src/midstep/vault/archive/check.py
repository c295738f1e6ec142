"""What is wrong with an archive: the oracle of many tests. Reads only.

Without ``deep``: all manifests, indexes and sizes. With it every byte of every pack is read, and every chunk
hashed.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from midstep.vault.archive.archive import SNAPSHOTS, Archive
from midstep.vault.archive.leases import void_leases
from midstep.vault.archive.manifest import ArchivedSnapshot
from midstep.vault.errors import ChunkDamaged, Damaged, FormatUnknown, SnapshotMissing
from midstep.vault.store.content import ChunkId, PackInfo

Report = Callable[[int, int], None]


class Grade(enum.StrEnum):
    """How bad it is."""

    DAMAGE = "damage"  # snapshots cannot be restored, or the next thing that breaks hurts them
    WASTE = "waste"  # bytes too many: a collection removes them


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing. ``snapshots``: those that cannot be restored because of it."""

    grade: Grade
    object: str
    what: str
    snapshots: tuple[str, ...] = ()


def check(archive: Archive, deep: bool = False, progress: Report | None = None) -> list[Finding]:
    """All that is found, damage first. ``progress``: bytes read, of how many. BackendError.

    A writer or a collector may be at work. What one look takes for damage because of them (a pack that was
    collected after the indexes were read, a snapshot whose chunks were indexed after it) a second look, with
    the indexes of then, does not find again: names of packs never come again.
    """
    findings = _look(archive, deep, None, progress)
    suspects = {finding.object for finding in findings if finding.grade is Grade.DAMAGE}
    if suspects:
        archive.reopen()
        again = {it.object: it for it in _look(archive, deep, suspects, None) if it.grade is Grade.DAMAGE}
        findings = [it for it in findings if it.grade is not Grade.DAMAGE or it.object in again]
    return sorted(findings, key=lambda finding: (finding.grade, finding.object, finding.what))


def _look(
    archive: Archive, deep: bool, only: Collection[str] | None, progress: Report | None
) -> list[Finding]:
    """``only``: the packs that are read."""
    repository = archive.repository
    repository.refresh()
    snapshots, findings = _manifests(archive)
    findings += [Finding(Grade.DAMAGE, _object_in(error), str(error)) for error in repository.damage]
    users = _users(snapshots)
    findings += _unknown_chunks(archive, snapshots)
    packs = list(repository.packs())
    sizes = {info.name: info.size for info in archive.backend.list("packs")}
    findings += _sizes(packs, sizes, users)
    if deep:
        whole = [pack for pack in packs if sizes.get(pack.name) == pack.size]
        chosen = whole if only is None else [pack for pack in whole if pack.name in only]
        findings += _deep(archive, chosen, users, progress or (lambda done, total: None))
    return findings + _waste(archive, sizes)


def damaged_snapshots(findings: Iterable[Finding]) -> list[str]:
    """Those that cannot be restored."""
    return sorted({snapshot_id for finding in findings for snapshot_id in finding.snapshots})


def _manifests(archive: Archive) -> tuple[list[ArchivedSnapshot], list[Finding]]:
    found: list[ArchivedSnapshot] = []
    wrong: list[Finding] = []
    for snapshot_id in archive.snapshot_ids():
        name = f"{SNAPSHOTS}/{snapshot_id.rpartition('-')[0] or '_'}/{snapshot_id}"
        try:
            snapshot = archive.load(snapshot_id)
        except SnapshotMissing:
            continue  # forgotten meanwhile
        except (Damaged, FormatUnknown) as error:
            wrong.append(Finding(Grade.DAMAGE, name, str(error), (snapshot_id,)))
            continue
        if snapshot.snapshot_id != snapshot_id:
            words = f"{name} holds the manifest of {snapshot.snapshot_id}"
            wrong.append(Finding(Grade.DAMAGE, name, words, (snapshot_id,)))
        found.append(snapshot)
    return found, wrong


def _users(snapshots: Collection[ArchivedSnapshot]) -> dict[ChunkId, list[str]]:
    users: dict[ChunkId, list[str]] = defaultdict(list)
    for snapshot in snapshots:
        for chunk in set(snapshot.ids()):
            users[chunk].append(snapshot.snapshot_id)
    return users


def _unknown_chunks(archive: Archive, snapshots: Collection[ArchivedSnapshot]) -> list[Finding]:
    findings: list[Finding] = []
    for snapshot in snapshots:
        plain = snapshot.plain_bytes()
        name = f"{SNAPSHOTS}/{snapshot.job_id}/{snapshot.snapshot_id}"
        if gone := archive.repository.missing(plain):
            words = f"{len(gone)} chunks that it needs are in no index, one is {min(gone).hex()[:16]}"
            findings.append(Finding(Grade.DAMAGE, name, words, (snapshot.snapshot_id,)))
        there = ((chunk, archive.repository.find(chunk)) for chunk in plain)
        if short := [chunk for chunk, stored in there if stored and stored.plain < plain[chunk]]:
            words = f"{len(short)} chunks are shorter than it needs them, one is {min(short).hex()[:16]}"
            findings.append(Finding(Grade.DAMAGE, name, words, (snapshot.snapshot_id,)))
    return findings


def _sizes(
    packs: Iterable[PackInfo], sizes: dict[str, int], users: dict[ChunkId, list[str]]
) -> list[Finding]:
    findings: list[Finding] = []
    for pack in packs:
        found = sizes.get(pack.name)
        if found != pack.size:
            words = "is gone" if found is None else f"has {found} bytes instead of {pack.size}"
            lost = (it.chunk for it in pack.chunks if it.offset + it.stored > (found or 0))
            hurt = _hurt(lost, users)
            findings.append(Finding(Grade.DAMAGE, pack.name, f"the pack {words}", hurt))
    return findings


def _deep(
    archive: Archive, packs: list[PackInfo], users: dict[ChunkId, list[str]], report: Report
) -> list[Finding]:
    findings: list[Finding] = []
    total, done = sum(pack.size for pack in packs), 0
    for pack in packs:
        report(done, total)
        errors = archive.repository.verify(pack.name)
        for error in errors:
            findings.append(Finding(Grade.DAMAGE, pack.name, str(error), _hurt_by(error, pack, users)))
        done += pack.size
    report(done, total)
    return findings


def _hurt_by(error: Damaged, pack: PackInfo, users: dict[ChunkId, list[str]]) -> tuple[str, ...]:
    """The chunks that the error names; a pack whose own description is damaged can still be read by index."""
    if not isinstance(error, ChunkDamaged):
        return ()
    words = str(error)
    named = [stored.chunk for stored in pack.chunks if stored.chunk.hex()[:16] in words]
    return _hurt(named or (stored.chunk for stored in pack.chunks), users)


def _hurt(chunks: Iterable[ChunkId], users: dict[ChunkId, list[str]]) -> tuple[str, ...]:
    return tuple(sorted({snapshot for chunk in chunks for snapshot in users.get(chunk, ())}))


def _waste(archive: Archive, sizes: dict[str, int]) -> list[Finding]:
    found = [
        Finding(Grade.WASTE, name, f"{sizes.get(name, 0)} bytes that no index names: left by a writer")
        for name in archive.repository.orphans()
    ]
    words = "the lease of a writer or collector that was killed"
    return [
        *found,
        *(Finding(Grade.WASTE, name, words) for name in void_leases(archive.backend, archive.clock)),
    ]


def _object_in(error: Damaged) -> str:
    """The object's name in a message of the store."""
    words = (word.strip(",.:;()'`") for word in str(error).split())
    return next((word for word in words if word.startswith(("packs/", "index/"))), "index")
