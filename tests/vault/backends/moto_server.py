"""A real S3 server: moto's, as a process of its own, spoken to over HTTP."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import httpx

BUCKET = "vault"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
_ENTRY = """
import sys
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
server = make_server(sys.argv[1], 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def server(host: str = "127.0.0.1") -> Generator[int]:
    """Its port; it holds one empty bucket. ``host``: at which of this machine's addresses it answers."""
    process = subprocess.Popen(
        [sys.executable, "-c", _ENTRY, host], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        _make_bucket(f"http://{host}:{port}/{BUCKET}")
        yield port
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def url(endpoint: str, prefix: str) -> str:
    """A vault's, below a prefix of the bucket."""
    return f"s3://{BUCKET}/{prefix}?endpoint={endpoint}"


def _make_bucket(url: str) -> None:
    for _ in range(50):
        try:
            httpx.put(url, timeout=20).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"moto's server does not answer at {url}")
