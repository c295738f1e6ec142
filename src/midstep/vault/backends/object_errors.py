"""What a failure of an object store means for a vault, and what to do about it.

The library's exceptions tell apart only missing, taken and forbidden; of everything else the HTTP status and
the store's own code are in the text.
"""

from __future__ import annotations

import re

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, UnauthenticatedError

from midstep.vault.errors import (
    BackendDenied,
    BackendError,
    BackendFull,
    BackendUnreachable,
    ObjectExists,
    ObjectMissing,
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "EntityTooLarge"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_BEYOND = "Wanted range starting at"  # the library, of an answer that is not 416: Azure's emulator
_LATER = {408, 425, 429}
_WAIT_CODES = {"ConditionalRequestConflict", "RequestTimeout", "SlowDown", "OperationAborted"}
# where the libraries look for credentials when none are given: on the machine's own cloud
_METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")


class RangeUnsatisfiable(BackendError):
    """The range begins at the object's end or after it. Stays within this folder."""


def meaning(error: Exception, doing: str, name: str, where: str) -> BackendError:
    """The error as one of ours. Never a guess that it worked; in doubt BackendUnreachable, which is tried
    again."""
    text = str(error)
    status, code = _status(text), _code(text)
    said = f"{doing} in {where}: {_short(text)}"
    if code in _NO_BUCKET:
        return BackendDenied(f"{said}. The bucket does not exist: make it, or correct the vault's URL")
    if code in _WAIT_CODES:
        return BackendUnreachable(f"{said}. The store asks to come again")
    if isinstance(error, AlreadyExistsError):
        return ObjectExists(f"object {name} exists already in {where}")
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"there is no object {name} in {where}")
    if status == 416 or _BEYOND in text:
        return RangeUnsatisfiable(said)
    if status == 507 or code in _FULL:
        return BackendFull(f"{said}. No space in the bucket: raise its quota or make room, then try again")
    if any(place in text for place in _METADATA):
        return BackendDenied(
            f"{said}. No credentials were found: set them in the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_ACCOUNT_KEY), or give "
            "the machine a role"
        )
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in (401, 403):
        return BackendDenied(
            f"{said}. The store refuses: the credentials must allow to get, put, list and delete below "
            f"that prefix"
        )
    if status is not None and status < 500 and status not in _LATER:
        return BackendDenied(
            f"{said}. The store refuses (status {status}): check the vault's URL, region and endpoint"
        )
    return BackendUnreachable(f"{said}. No whole answer from the store")


def _status(text: str) -> int | None:
    return int(found[1]) if (found := _STATUS.search(text)) else None


def _code(text: str) -> str:
    return found[1] if (found := _CODE.search(text)) else ""


def _short(text: str) -> str:
    """The library's message without its debug output and the store's XML."""
    text = text.split("\n\nDebug source:")[0].split("<?xml")[0].strip().rstrip(":")
    return " ".join(text.split())[:300]
