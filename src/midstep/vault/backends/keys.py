"""The key that objects are encrypted with: 32 bytes, from a file or the environment."""

from __future__ import annotations

import base64
import binascii
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from midstep.vault.errors import WrongKey

KEY_BYTES = 32
KEY, KEY_FILE = "MIDSTEP_VAULT_KEY", "MIDSTEP_VAULT_KEY_FILE"  # environment: the key itself, or where it is
_MAKE = "make one with `(umask 077; openssl rand -hex 32 > FILE)`"
_HEX = re.compile(r"[0-9a-fA-F]{64}")


def find_key(path: Path | None, environment: Mapping[str, str]) -> bytes | None:
    """The key of the file, else of the environment; None if there is none of all. WrongKey: it cannot be
    used."""
    if path is not None:
        return read_key(path)
    if environment.get(KEY):
        return parse_key(environment[KEY].encode(), f"the environment variable {KEY}")
    return read_key(Path(environment[KEY_FILE])) if environment.get(KEY_FILE) else None


def read_key(path: Path) -> bytes:
    """The key that a file holds: 32 bytes, or 64 hex digits, or base64. WrongKey."""
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise WrongKey(f"cannot read the vault's key from {path}: {error.strerror}; {_MAKE}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise WrongKey(
            f"others may read the vault's key {path}: `chmod 600 {path}`, and think about who did read it"
        )
    return parse_key(content, str(path))


def parse_key(content: bytes, source: str) -> bytes:
    """A key from what a file or variable holds. WrongKey."""
    if len(content) == KEY_BYTES:
        return content
    text = content.strip()
    if _HEX.fullmatch(text.decode("ascii", "replace")):
        return bytes.fromhex(text.decode())
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise WrongKey(
            f"{source} holds no key: 64 hex digits, base64 of 32 bytes, or 32 bytes are one; {_MAKE}"
        )
    return key
