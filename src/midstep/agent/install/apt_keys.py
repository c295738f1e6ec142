"""Checking a signature with gpgv against the archive keys that this machine's distribution has installed."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from midstep.agent.install.criu_errors import NotHere, NotTrusted

KEYRINGS = Path("/usr/share/keyrings")
TRUSTED = (Path("/etc/apt/trusted.gpg"), Path("/etc/apt/trusted.gpg.d"))
STRONG_HASHES = ("8", "9", "10")  # SHA256, SHA384, SHA512 in OpenPGP's numbering
ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Keyring:
    """Public keys to verify against: gpg's binary format, armour taken off."""

    keys: bytes
    names: tuple[str, ...]  # of the files, for messages


def load_keyring(signed_by: str, family: str) -> Keyring:
    """The keys that a source names with Signed-By, else all that apt trusts and the distribution's archive
    keyring.

    Raises NotHere when there are none.
    """
    if "-----BEGIN" in signed_by:
        return Keyring(strip_armour(signed_by.encode()), ("the key in apt's source list",))
    paths = [Path(word) for word in signed_by.split() if word.startswith("/")]
    if not paths:
        paths = [*_expand(TRUSTED), KEYRINGS / f"{family}-archive-keyring.gpg"]
    readable = [path for path in paths if path.is_file()]
    if not readable:
        names = ", ".join(str(path) for path in paths)
        raise NotHere(f"no archive keys on this machine ({names}): apt-get install {family}-archive-keyring")
    keys = b"".join(strip_armour(path.read_bytes()) for path in readable)
    return Keyring(keys, tuple(str(path) for path in readable))


def strip_armour(content: bytes) -> bytes:
    """gpgv reads binary keys only; apt takes armoured ones too."""
    blocks = ARMOUR.findall(content)
    if not blocks:
        return content
    binary = b""
    for block in blocks:
        # headers end at an empty line; the last line, "=...", is a checksum
        body = re.split(rb"\r?\n[ \t]*\r?\n", block, maxsplit=1)[-1]
        lines = [line.strip() for line in body.splitlines()]
        binary += base64.b64decode(b"".join(line for line in lines if line and not line.startswith(b"=")))
    return binary


def verify_clearsigned(signed: bytes, keyring: Keyring, name: str) -> str:
    """The text that the signature covers, and nothing around it. Raises NotTrusted, NotHere."""
    with tempfile.TemporaryDirectory(prefix="midstep-gpgv-") as folder:
        file, output = Path(folder, "signed"), Path(folder, "text")
        file.write_bytes(signed)
        _run_gpgv(Path(folder), keyring, name, ["--output", str(output), str(file)])
        if not output.exists():
            raise NotTrusted(f"{name} is not a signed file")
        return output.read_text()


def verify_detached(text: bytes, signature: bytes, keyring: Keyring, name: str) -> str:
    with tempfile.TemporaryDirectory(prefix="midstep-gpgv-") as folder:
        file, beside = Path(folder, "text"), Path(folder, "signature")
        file.write_bytes(text)
        beside.write_bytes(signature)
        _run_gpgv(Path(folder), keyring, name, [str(beside), str(file)])
        return text.decode()


def _run_gpgv(folder: Path, keyring: Keyring, name: str, arguments: list[str]) -> None:
    """Content with one good signature and no bad one: the rule that apt has (several keys sign, not all are
    installed).
    """
    if shutil.which("gpgv") is None:
        raise NotHere(
            "gpgv is missing, without it nothing that is downloaded can be trusted: apt-get install gpgv"
        )
    keys = folder / "keys.gpg"
    keys.write_bytes(keyring.keys)
    command = ["gpgv", "--homedir", str(folder), "--status-fd", "1", "--keyring", str(keys), *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    judge(done.stdout, name, keyring)


def judge(status: str, name: str, keyring: Keyring) -> None:
    """Read gpgv's status lines. Raises NotTrusted, naming the file and the keys."""
    said = [line.split()[1:] for line in status.splitlines() if line.startswith("[GNUPG:]")]
    good = _keys_of(said, "GOODSIG")
    # the ninth word is the hash's number: MD5, SHA1 and the like prove nothing
    valid = {
        words[1]
        for words in said
        if words[:1] == ["VALIDSIG"] and len(words) > 8 and words[8] in STRONG_HASHES
    }
    looked = ", ".join(keyring.names)
    if bad := _keys_of(said, "BADSIG"):
        raise NotTrusted(
            f"{name}: the signature of key {', '.join(bad)} does not fit the content (keys: {looked})"
        )
    if any(fingerprint.endswith(key) for fingerprint in valid for key in good):
        return
    if old := _keys_of(said, "EXPSIG", "EXPKEYSIG", "REVKEYSIG"):
        raise NotTrusted(f"{name}: signed by an expired or revoked key, {', '.join(old)}, of {looked}")
    if missing := _keys_of(said, "NO_PUBKEY"):
        by = ", ".join(missing)
        raise NotTrusted(f"{name} is signed by {by}; not a key in {looked}: update the archive keyring")
    raise NotTrusted(f"{name} has no signature that counts (keys: {looked})")


def _keys_of(said: list[list[str]], *keywords: str) -> list[str]:
    return sorted({words[1] for words in said if len(words) > 1 and words[0] in keywords})


def _expand(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.gpg")) + sorted(path.glob("*.asc")) if path.is_dir() else [path]
    return files
