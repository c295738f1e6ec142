"""What a snapshot says of its job, so that it can be gone on with where nobody knows the job: the disk of its
controller is lost, or the snapshot was copied to another fleet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from midstep.control.errors import Rejected
from midstep.control.vaults.snapshots import Vaults
from midstep.engine.record import JobRecord
from midstep.model.job import JobSpec, SnapshotRef
from midstep.vault.archive.archive import job_of
from midstep.vault.errors import VaultError
from midstep.vault.parts import Manifest
from midstep.vault.snapshots import Snapshots

_AN_ID = re.compile(r"j-[0-9a-f]+(-[0-9.]+)?")


@dataclass(frozen=True, slots=True)
class Described:
    """How a job was started: as what, and its ranks by virtual host."""

    spec: JobSpec
    homes: tuple[tuple[int, ...], ...]


_FORM = TypeAdapter(Described)


def describe(record: JobRecord) -> dict[str, Any]:
    """As JSON, for the manifest."""
    return _FORM.dump_python(Described(record.spec, record.homes), mode="json")


def found_in_vaults(asked: str, vaults: Vaults) -> tuple[Described, SnapshotRef, Manifest] | None:
    """A snapshot by its id, or the newest one of a job by the job's id, in the first region that has any.
    None: there is none. Blocks. Raises Rejected: it does not say how its job was started, or it may be in an
    archive that does not answer."""
    if not _AN_ID.fullmatch(asked):
        return None
    silent: VaultError | None = None
    for region in vaults.regions:
        try:
            vault = vaults.vault(region)
            manifest = manifest_in(vault, asked) or _newest(asked, vault)
        except VaultError as error:
            silent = error
            continue
        if manifest is not None:
            ref = SnapshotRef(manifest.snapshot_id, region, manifest.nbytes)
            return _described(manifest), ref, manifest
    if silent is not None:
        raise Rejected(409, "no_snapshot", f"{asked} may be where nobody can look now", str(silent))
    return None


def manifest_in(vault: Snapshots, snapshot_id: str) -> Manifest | None:
    """Of a snapshot that is whole in its folder, or archived; None: it is neither. VaultError."""
    if vault.is_raw(snapshot_id):
        return vault.verify(snapshot_id)
    archive = vault.archive()
    if archive is None or not archive.exists(snapshot_id):
        return None
    return archive.load(snapshot_id).manifest


def _described(manifest: Manifest) -> Described:
    try:
        return _FORM.validate_python(manifest.job)
    except ValidationError:
        words = f"snapshot {manifest.snapshot_id} does not say how its job was started"
        reason = "no job here is known by that id, and an older version of Midstep wrote it"
        raise Rejected(409, "no_snapshot", words, reason) from None


def _newest(job_id: str, vault: Snapshots) -> Manifest | None:
    names = [name for name in vault.ids() if job_of(name) == job_id and vault.exists(name)]
    found = [vault.manifest(name) for name in names]
    if (archive := vault.archive()) is not None:
        found += [archived.manifest for archived in archive.snapshots(job_id)]
    return max(found, key=lambda manifest: manifest.order, default=None)
