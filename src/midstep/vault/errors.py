"""Errors of the vault.

VaultError
|-- SnapshotMissing        there is no such committed snapshot
|-- SnapshotIncomplete     a file is not there or not as long as its part file says: nothing is committed, and
|                          nothing is restored
|-- SnapshotExists         a snapshot of that id is committed already
|-- FormatUnknown          written by another version of Midstep: says which, and what to do
|-- Damaged                bytes are not those that were written; another snapshot may be whole
|   |-- ChunkDamaged       names chunk, pack and offset
|   |-- ChunkMissing       no index knows the chunk, or its pack is gone
|   |-- PackDamaged        a pack's own description cannot be read
|   |-- IndexDamaged       an index cannot be read; it can be rebuilt from the packs
|   `-- ManifestDamaged    a snapshot's manifest cannot be read
|-- Fenced                 somebody else owns the job by now: what was to be written is not
|-- LeaseLost              a writer was silent for too long; what it wrote may be collected, so it starts over
|-- Busy                   a collector or a writer is at work; again later
`-- BackendError           the place where objects are kept
    |-- ObjectMissing      no object of that name
    |-- ObjectExists       `create`: the name is taken
    |-- ObjectTorn         the object ends before what was asked for
    |-- ObjectDamaged      an encrypted object is not what was written under that name
    |-- WrongKey           no key, another key, or one that cannot be used
    |-- BackendFull        no space: make room, then again
    |-- BackendDenied      not allowed, or not possible with this configuration: again will not help
    `-- BackendUnreachable no answer, a broken one, or "later": again may help
"""


class VaultError(Exception):
    """Something about a snapshot; the message says which and what to do."""


class SnapshotMissing(VaultError):
    """There is no such committed snapshot."""


class SnapshotIncomplete(VaultError):
    """A part is not there, or not as long as its part file says."""


class SnapshotExists(VaultError):
    """A snapshot of that id is committed already."""


class FormatUnknown(VaultError):
    """Written in a format that this version does not read; the message says by which version it is read."""


class Damaged(VaultError):
    """Bytes in the archive are not those that were written."""


class ChunkDamaged(Damaged):
    """A chunk's content does not match its id."""


class ChunkMissing(Damaged):
    """No index knows the chunk, or the pack that it is in is gone."""


class PackDamaged(Damaged):
    """A pack's own description of what it holds cannot be read."""


class IndexDamaged(Damaged):
    """An index object cannot be read. Nothing is lost: it can be made again from the packs."""


class ManifestDamaged(Damaged):
    """A snapshot's manifest cannot be read."""


class Fenced(VaultError):
    """Another owner of the job has taken over; the late write changed nothing."""


class LeaseLost(VaultError):
    """A writer's lease is over, so what it wrote may have been collected."""


class Busy(VaultError):
    """Somebody collects, or stores; the other of the two has to come again later."""


class BackendError(VaultError):
    """The place where objects are kept could not do what was asked."""


class ObjectMissing(BackendError):
    """There is no object of that name."""


class ObjectExists(BackendError):
    """`create` found the name taken; the object there is untouched."""


class ObjectTorn(BackendError):
    """An object ends before the range that was asked for."""


class ObjectDamaged(BackendError):
    """An encrypted object was altered, cut, or moved here from another name."""


class WrongKey(BackendError):
    """The vault is encrypted and no key was given, or another one, or the key cannot be used."""


class BackendFull(BackendError):
    """No space left, or a quota reached, in the place that the message names."""


class BackendDenied(BackendError):
    """Not permitted, or not possible with this configuration. Trying again will not help."""


class BackendUnreachable(BackendError):
    """No answer, one that broke off, or a server that asks to come again. Trying again may help."""
