"""What agents of other regions are given of a region's archive: manifests, and the chunks that they lack."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from midstep.control.errors import Rejected, invalid
from midstep.control.vaults.archiving import Archiving
from midstep.control.vaults.snapshots import Vaults
from midstep.vault.archive.manifest import encode
from midstep.vault.archive.shipping import frames, split_ids
from midstep.vault.errors import Damaged, SnapshotIncomplete, SnapshotMissing, VaultError
from midstep.vault.snapshots import Snapshots

PATIENCE_S = 20.0  # then even what nobody stands still for is archived at normal priority
WAIT_S = 10.0  # then whoever asks is told how far it is, and asks again
_OF_THE_SNAPSHOT = ("SnapshotMissing", "SnapshotIncomplete")


@dataclass(frozen=True, slots=True)
class NotYet:
    """A snapshot is being archived: so many bytes of so many are done (0: not known yet)."""

    done_bytes: int = 0
    total_bytes: int = 0


class Shipping:
    """The archives of all regions, for agents. Its methods raise Rejected."""

    def __init__(self, vaults: Vaults, archiving: Archiving) -> None:
        self._vaults, self._archiving = vaults, archiving
        self._asked_s: dict[str, float] = {}  # snapshot -> when somebody patient asked first

    async def manifest(self, region: str, snapshot_id: str, *, patient: bool = False) -> bytes | NotYet:
        """A snapshot's archived manifest. One that is not archived yet is now, at normal priority; if whoever
        asks is ``patient``, when its turn comes, or after a while: where jobs take all processors, it might
        never come."""
        found = await self._load(region, snapshot_id)
        if found is None:
            await self._archived(region, snapshot_id, patient and self._may_wait(snapshot_id))
            found = await self._load(region, snapshot_id)
        if found is not None:
            self._asked_s.pop(snapshot_id, None)
        return found or NotYet(*self._archiving.hurry.done_bytes.get(snapshot_id, (0, 0)))

    async def chunks(self, region: str, body: bytes) -> Iterator[bytes]:
        """The chunks whose ids are in ``body``, as a stream of frames."""
        try:
            ids = split_ids(body)
        except ValueError as error:
            raise invalid("the request", str(error)) from None
        archive = await asyncio.to_thread(self._vault(region).archive)
        if archive is None:
            raise Rejected(404, "no_such_snapshot", f"region {region} has no archive")
        return frames(archive, ids)

    def _vault(self, region: str) -> Snapshots:
        try:
            return self._vaults.vault(region)
        except SnapshotMissing as error:
            raise Rejected(404, "no_such_snapshot", str(error)) from None

    def _may_wait(self, snapshot_id: str) -> bool:
        now_s = asyncio.get_running_loop().time()
        return now_s - self._asked_s.setdefault(snapshot_id, now_s) < PATIENCE_S

    async def _archived(self, region: str, snapshot_id: str, patient: bool) -> None:
        """Wait a while for it."""
        hurry = self._archiving.hurry
        missing = lambda: snapshot_id not in self._vaults.durable  # noqa: E731
        if (failed := hurry.errors.pop(snapshot_id, None)) and failed.kind in _OF_THE_SNAPSHOT:
            raise Rejected(422, "snapshot_damaged", f"snapshot {snapshot_id} cannot be used", failed.error)
        if failed:
            raise Rejected(503, "not_archived", f"snapshot {snapshot_id} cannot be archived", failed.error)
        begun = patient or hurry.under_way(snapshot_id) or self._archiving.hasten(region, snapshot_id)
        if not begun:
            hint = "snapshots travel between archives, and this controller has no archiver"
            raise Rejected(503, "not_archived", f"snapshot {snapshot_id} is not archived", "", hint)
        try:
            async with asyncio.timeout(WAIT_S):
                while (patient and missing()) or hurry.under_way(snapshot_id):
                    if snapshot_id in hurry.errors:
                        return
                    await hurry.changed.wait()
        except TimeoutError:
            pass

    async def _load(self, region: str, snapshot_id: str) -> bytes | None:
        """None: it is here, but not archived."""
        vault = self._vault(region)

        def archived() -> bytes | None:
            archive = vault.archive()
            if archive is None or not archive.exists(snapshot_id):
                return None
            return encode(archive.load(snapshot_id))

        def look() -> bytes | None:
            if found := archived():
                return found
            try:
                vault.verify(snapshot_id)
            except SnapshotMissing:
                if found := archived():  # since we looked; then its folders went
                    return found
                raise
            return None

        try:
            return await asyncio.to_thread(look)
        except SnapshotMissing as error:
            raise Rejected(404, "no_such_snapshot", str(error)) from None
        except (Damaged, SnapshotIncomplete) as error:
            raise Rejected(422, "snapshot_damaged", str(error)) from None
        except VaultError as error:
            raise Rejected(503, "not_archived", str(error)) from None
