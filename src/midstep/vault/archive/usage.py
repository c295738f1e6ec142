"""What an archive's space is used for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from midstep.vault.archive.archive import Archive
from midstep.vault.store.content import ChunkId


@dataclass(frozen=True, slots=True)
class JobUsage:
    """Of one job: ``nbytes`` that its snapshots would take as plain files; ``stored_bytes`` of its chunks,
    and how many of them no other job shares."""

    job_id: str
    snapshots: int
    nbytes: int
    stored_bytes: int
    own_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Of an archive, in bytes: plain files, packs, indexes and manifests, and what no snapshot needs."""

    jobs: tuple[JobUsage, ...]
    nbytes: int
    pack_bytes: int
    other_bytes: int
    dead_bytes: int


def usage(archive: Archive) -> Usage:
    """Look. Snapshots whose manifest cannot be read do not count; `check` names them."""
    archive.repository.refresh()
    jobs: dict[str, list[int]] = defaultdict(list)
    users: dict[ChunkId, set[str]] = defaultdict(set)
    for snapshot in archive.snapshots():
        jobs[snapshot.job_id].append(snapshot.nbytes)
        for chunk in snapshot.ids():
            users[chunk].add(snapshot.job_id)
    stored, own = _shares(archive, users)
    rows = (
        JobUsage(job, len(sizes), sum(sizes), stored[job], own[job]) for job, sizes in sorted(jobs.items())
    )
    packs = sum(info.size for info in archive.backend.list("packs"))
    total = sum(info.size for info in archive.backend.list())
    live = sum(where.stored for chunk in users if (where := archive.repository.find(chunk)) is not None)
    said = sum(pack.size - sum(chunk.stored for chunk in pack.chunks) for pack in archive.repository.packs())
    nbytes = sum(size for sizes in jobs.values() for size in sizes)
    dead = max(0, packs - live - said)  # what a pack says of itself is needed as long as the pack is
    return Usage(tuple(rows), nbytes, packs, total - packs, dead)


def _shares(
    archive: Archive, users: dict[ChunkId, set[str]]
) -> tuple[defaultdict[str, int], defaultdict[str, int]]:
    stored: defaultdict[str, int] = defaultdict(int)
    own: defaultdict[str, int] = defaultdict(int)
    for chunk, jobs in users.items():
        where = archive.repository.find(chunk)
        for job in jobs if where is not None else ():
            assert where is not None
            stored[job] += where.stored
            own[job] += where.stored if len(jobs) == 1 else 0
    return stored, own
