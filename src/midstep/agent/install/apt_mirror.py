"""A mirror of Debian or Ubuntu packages, read with apt's own proof: every byte used hangs from a signed
Release file.

Release file    signed; verified with gpgv against the archive keys that are installed on this machine
Packages index  its SHA256 is in the Release file
package         its SHA256 is in the index
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from midstep.agent.install.apt_keys import Keyring, verify_clearsigned, verify_detached
from midstep.agent.install.criu_errors import NoNetwork, NotTrusted

TRIES = 3
ANSWER_WITHIN_S = 60.0


class NotFound(Exception):
    """The mirror answers, but has no such file."""


@dataclass(frozen=True, slots=True)
class Digest:
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Release:
    suite: str  # as asked for
    codename: str
    version: str  # "13.7"; empty for those without
    components: tuple[str, ...]
    files: dict[str, Digest]  # by path under dists/<suite>/


class Mirror:
    """Files of one mirror; what has been fetched and checked is kept under `kept`, so that a second try goes
    on there.
    """

    def __init__(self, uri: str, keyring: Keyring, kept: Path) -> None:
        self.uri = uri
        self._keyring = keyring
        self._kept = kept
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(_proxies()))

    def release(self, suite: str) -> Release:
        """Raises NotFound, NoNetwork, NotTrusted."""
        name = f"{self.uri}/dists/{suite}"
        try:
            signed = self._get(f"{name}/InRelease")
        except NotFound:
            text, signature = self._get(f"{name}/Release"), self._get(f"{name}/Release.gpg")
            return parse_release(suite, verify_detached(text, signature, self._keyring, f"{name}/Release"))
        return parse_release(suite, verify_clearsigned(signed, self._keyring, f"{name}/InRelease"))

    def index(self, release: Release, path: str) -> bytes:
        """A file that the Release file names, as it is (compressed); by its hash where that is offered."""
        digest = release.files[path]
        folder = f"dists/{release.suite}"
        by_hash = f"{folder}/{path.rpartition('/')[0]}/by-hash/SHA256/{digest.sha256}"
        try:
            return self.file(by_hash, digest).read_bytes()
        except NotFound:
            return self.file(f"{folder}/{path}", digest).read_bytes()

    def file(self, path: str, digest: Digest) -> Path:
        """Where a file of the mirror lies here, fetched if it was not there, its content checked."""
        target = self._kept / digest.sha256
        if target.exists() and _matches(target.read_bytes(), digest):
            return target
        content = self._get(f"{self.uri}/{path}")
        if not _matches(content, digest):
            raise NotTrusted(
                f"{self.uri}/{path} is not what the signed Release file says: {len(content)} bytes "
                f"with SHA256 {hashlib.sha256(content).hexdigest()}, "
                f"expected {digest.size_bytes} with {digest.sha256}; "
                "if the mirror is being updated this passes in some minutes, else do not trust it"
            )
        self._kept.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._kept, prefix=".part-", delete=False) as part:
            part.write(content)
        os.replace(part.name, target)
        return target

    def listing(self, path: str) -> str:
        """The web server's own page for a folder; empty where it gives none. Not signed: good for names to
        try only.
        """
        try:
            return self._get(f"{self.uri}/{path}").decode(errors="replace")
        except (NotFound, NoNetwork):
            return ""

    def _get(self, url: str) -> bytes:
        last: Exception | None = None
        for _ in range(TRIES):
            try:
                with self._opener.open(url, timeout=ANSWER_WITHIN_S) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                if error.code in (403, 404, 410):
                    raise NotFound(url) from error
                last = error
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.URLError) and isinstance(error.reason, FileNotFoundError):
                    raise NotFound(url) from error
                last = error
        raise NoNetwork(
            f"{url} cannot be fetched ({last}): is this machine connected, and does `apt-get update` work? "
            "What has been fetched so far is kept; the next try goes on from there"
        ) from last


def parse_release(suite: str, text: str) -> Release:
    """From the signed part of a Release file."""
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", text, re.MULTILINE))
    listed = re.search(r"^SHA256:\s*\n((?: .*\n?)+)", text, re.MULTILINE)
    files: dict[str, Digest] = {}
    for line in listed.group(1).splitlines() if listed else []:
        sha256, size, path = line.split()
        files[path] = Digest(sha256, int(size))
    components = tuple(fields.get("Components", "").split())
    return Release(suite, fields.get("Codename", suite), fields.get("Version", ""), components, files)


def _matches(content: bytes, digest: Digest) -> bool:
    return len(content) == digest.size_bytes and hashlib.sha256(content).hexdigest() == digest.sha256


def _proxies(ask: Callable[[str], str] | None = None) -> dict[str, str]:
    """Those of the environment, and over them those that apt is configured with."""
    ask = ask or _ask_apt
    proxies = urllib.request.getproxies()
    for scheme in ("http", "https"):
        answer = ask(f"Acquire::{scheme}::Proxy")
        if answer == "DIRECT":
            proxies.pop(scheme, None)
        elif answer:
            proxies[scheme] = answer
    return proxies


def _ask_apt(option: str) -> str:
    try:
        done = subprocess.run(
            ["apt-config", "shell", "value", option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.match(r"value='(.*)'", done.stdout)
    return found.group(1) if found else ""
