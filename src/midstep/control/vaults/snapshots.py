"""The vaults of all regions: what the engine's effects ask of them, in threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from midstep.engine.effects import CommitSnapshot
from midstep.engine.events import SnapshotCommitted, SnapshotFailed
from midstep.env import Clock
from midstep.model.job import SnapshotRef
from midstep.model.phase import Fault
from midstep.vault.errors import SnapshotMissing, VaultError
from midstep.vault.snapshots import Snapshots

LOG = logging.getLogger("midstep.control")
_QUIET_S = 1.0
_MOST_HOMES = 10_000


class Vaults:
    """One vault a region."""

    def __init__(self, folders: Mapping[str, Path], clock: Clock) -> None:
        self._vaults = {region: Snapshots(folder) for region, folder in sorted(folders.items())}
        self._clock = clock
        self._flushing: dict[str, asyncio.Event] = {}  # snapshot -> done
        self.durable: set[str] = set()  # snapshots that the archive has, as far as we have heard

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions' names, in order."""
        return tuple(self._vaults)

    async def commit(
        self, order: CommitSnapshot, job: Mapping[str, Any]
    ) -> SnapshotCommitted | SnapshotFailed:
        """Verify the parts and make the snapshot visible, with how its job was started; the answer is the
        event for the engine."""
        started_s = self._clock.monotonic_s()
        vault = self._vaults[order.region]
        try:
            manifest = await asyncio.to_thread(
                vault.commit, order.snapshot_id, order.job_id, order.epoch, order.nodes, order.store, job
            )
        except VaultError as error:
            return SnapshotFailed(order.snapshot_id, str(error), Fault.TRANSIENT)
        except (OSError, ValueError) as error:
            message = f"the vault of region {order.region} cannot take the snapshot: {error}"
            return SnapshotFailed(order.snapshot_id, message, Fault.JOB_STATE)
        reference = SnapshotRef(order.snapshot_id, order.region, manifest.nbytes)
        return SnapshotCommitted(reference, self._clock.monotonic_s() - started_s)

    async def flush(self, snapshot: SnapshotRef) -> None:
        """Bring a snapshot that was just committed to disk: after a moment, in which its job leaves its
        devices."""
        done = self._flushing.setdefault(snapshot.snapshot_id, asyncio.Event())
        try:
            await self._clock.sleep(_QUIET_S)
            ours = snapshot.region in self._vaults  # else another controller sees to it
            if ours and snapshot.snapshot_id not in self.durable:
                await asyncio.to_thread(self._vaults[snapshot.region].flush, snapshot.snapshot_id)
        except OSError as error:
            LOG.error("snapshot %s is not on disk in %s: %s", snapshot.snapshot_id, snapshot.region, error)
        finally:
            done.set()
            self._flushing.pop(snapshot.snapshot_id, None)

    async def delete(self, snapshot_id: str) -> None:
        """Remove a snapshot's folders, and what other regions have copied of it. Not before those that were
        committed since are on disk: one of them may take its place. What is archived of it goes by the rules
        of `archiving`."""
        for other, done in list(self._flushing.items()):
            if other != snapshot_id:
                await done.wait()
        await self.clear(snapshot_id)
        self.durable.discard(snapshot_id)

    def hide(self, snapshot_id: str) -> bool:
        """Have nobody begin to read a snapshot's folders from now on: they are archived. Whether there were
        any; `clear` removes them."""
        there = [vault for vault in self._vaults.values() if vault.exists(snapshot_id)]
        for vault in there:
            try:
                vault.hide(snapshot_id)
            except OSError as error:
                LOG.warning("snapshot %s stays in %s: %s", snapshot_id, vault.root, error)
        return bool(there)

    async def clear(self, snapshot_id: str) -> None:
        """Remove a snapshot's folders in all regions."""
        for region, vault in self._vaults.items():
            try:
                await asyncio.to_thread(vault.delete, snapshot_id)
            except OSError as error:  # the next sweep tries again
                LOG.warning("snapshot %s stays in region %s: %s", snapshot_id, region, error)

    async def sweep(self, keep: Collection[str], jobs: Collection[str]) -> None:
        """Remove what no record names any more: of these jobs only, others are not ours to judge."""
        found = await asyncio.to_thread(lambda: sorted(set(self._ids())))
        for snapshot_id in found:
            if snapshot_id not in keep and snapshot_id.rpartition("-")[0] in jobs:
                LOG.info("snapshot %s is not needed any more: removed", snapshot_id)
                await self.delete(snapshot_id)

    def root(self, region: str) -> Path:
        """The folder of a region's vault."""
        return self._vaults[region].root

    def vault(self, region: str) -> Snapshots:
        """A region's vault. SnapshotMissing: there is no such region."""
        if region not in self._vaults:
            raise SnapshotMissing(f"there is no region {region}; there are {', '.join(self._vaults)}")
        return self._vaults[region]

    async def folder(self, region: str, snapshot_id: str, *, images: bool = True) -> Path:
        """A committed snapshot's folder, from the archive if need be; without ``images`` only the homes.
        VaultError."""
        vault = self.vault(region)
        if vault.is_raw(snapshot_id):
            return vault.path(snapshot_id)
        homes = None if images else range(_MOST_HOMES)
        await asyncio.to_thread(vault.materialise, snapshot_id, None if images else (), homes)
        return vault.path(snapshot_id)

    def results(self, job_id: str) -> Path | None:
        """What an ended job left; None: nothing was saved."""
        found = [vault.results(job_id) for vault in self._vaults.values()]
        return next((path for path in found if path.is_dir()), None)

    def _ids(self) -> Iterator[str]:
        for vault in self._vaults.values():
            yield from vault.ids()
