"""A real server of Azure's blob storage: Microsoft's Azurite, as a process of its own, spoken to over HTTP.
`make zoo` installs it, where there is npm."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

CONTAINER = "vault"
ACCOUNT = "devstoreaccount1"
# Everybody's, for Azurite alone: it is in its documentation.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CREDENTIALS = {"AZURE_STORAGE_ACCOUNT_KEY": _KEY}
_PROGRAM = Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"
_VERSION = "2021-12-02"  # of the protocol


@contextmanager
def server(host: str = "127.0.0.1") -> Generator[int]:
    """Its port; it holds one empty container. ``host``: at which of this machine's addresses it answers."""
    node = shutil.which("node")
    if node is None or not _PROGRAM.exists():
        pytest.skip("Azurite is not installed: make zoo, with npm")
    options = ("--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent")
    process = subprocess.Popen(
        [node, str(_PROGRAM), "--blobHost", host, "--blobPort", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = _port(process)
        _make_container(f"http://{host}:{port}")
        yield port
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def url(endpoint: str, prefix: str) -> str:
    """A vault's, below a prefix of the container."""
    return f"az://{ACCOUNT}/{CONTAINER}/{prefix}?endpoint={endpoint}/{ACCOUNT}"


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"successfully listens on http://.*:(\d+)", line):
            return int(found[1])
    raise AssertionError(f"Azurite did not start: {process.wait()}")


def _make_container(url: str) -> None:
    """No library here makes one, so this one request is signed by hand (Shared Key)."""
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": now, "x-ms-version": _VERSION}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
    signed = "\n".join([*lines, f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}", "restype:container"])
    digest = hmac.digest(base64.b64decode(_KEY), signed.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    path = f"{url}/{ACCOUNT}/{CONTAINER}"
    answer = httpx.put(path, params={"restype": "container"}, headers=headers, timeout=20, trust_env=False)
    answer.raise_for_status()
