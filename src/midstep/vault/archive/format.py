"""The object that says what an archive is, and in which version. It is made first and never changed."""

from __future__ import annotations

import contextlib
import re

from midstep.vault.backends.base import Backend
from midstep.vault.errors import Damaged, FormatUnknown, ObjectExists, ObjectMissing, VaultError

FORMAT = 1
FORMAT_OBJECT = "format"
_SAYS = re.compile(rb"midstep vault, format ([0-9]{1,9})\n")


def check_format(backend: Backend, create: bool) -> None:
    """Make sure that this version can use the archive; an empty place becomes one, if ``create``.

    FormatUnknown, Damaged; VaultError: there is none.
    """
    try:
        words = backend.get(FORMAT_OBJECT)
    except ObjectMissing:
        if not create:
            raise VaultError(f"there is no vault at {backend.describe()}") from None
        with contextlib.suppress(ObjectExists):
            backend.create(FORMAT_OBJECT, b"midstep vault, format %d\n" % FORMAT)
        return
    found = _SAYS.fullmatch(words)
    if found is None:
        raise Damaged(f"{backend.describe()}: the object `{FORMAT_OBJECT}` does not say what this is")
    if int(found[1]) != FORMAT:
        raise FormatUnknown(
            f"the vault at {backend.describe()} has format {int(found[1])}, this version of Midstep reads "
            f"format {FORMAT}: use the Midstep that wrote it, or another place for this fleet's archive"
        )
