"""Errors of the vault.

VaultError
|-- SnapshotMissing      there is no such committed snapshot
|-- SnapshotIncomplete   a file is not there or not as long as its part file says: nothing is committed, and
|                        nothing is restored
`-- SnapshotExists       a snapshot of that id is committed already
"""


class VaultError(Exception):
    """Something about a snapshot; the message says which and what to do."""


class SnapshotMissing(VaultError):
    """There is no such committed snapshot."""


class SnapshotIncomplete(VaultError):
    """A part is not there, or not as long as its part file says."""


class SnapshotExists(VaultError):
    """A snapshot of that id is committed already."""
