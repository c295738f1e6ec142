from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from midstep.vault.backends.base import Backend
from midstep.vault.backends.local import LocalBackend
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.backends.open import plain_backend
from midstep.vault.backends.sealed import open_sealed
from tests.vault.backends import azurite_server, moto_server
from tests.vault.backends.fault_proxy import Script, fault_proxy
from tests.vault.backends.kit import KEY, ids, retrying

PLACES = ("memory", "local", "s3", pytest.param("azure", marks=pytest.mark.soak))
LAYERS: dict[str, Callable[[Backend], Backend]] = {
    "plain": lambda inner: inner,
    "retrying": retrying,
    "sealed": lambda inner: open_sealed(inner, KEY, ids()),
    "sealed+retrying": lambda inner: open_sealed(retrying(inner), KEY, ids()),
}
_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_port() -> Generator[int]:
    with moto_server.server() as port:
        yield port


@pytest.fixture
def s3_url(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A new prefix of a bucket on the server, or through a proxy at another port."""
    for name, value in moto_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    prefix = f"region-{next(_numbers)}"

    def url(port: int | None = None, timeout_s: float = 60) -> str:
        endpoint = f"http://127.0.0.1:{port or s3_port}"
        return f"{moto_server.url(endpoint, f'{prefix}/north')}&timeout_s={timeout_s}"

    return url


@pytest.fixture(scope="session")
def azure_port() -> Generator[int]:
    with azurite_server.server() as port:
        yield port


@pytest.fixture
def azure_url(azure_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new prefix of a container."""
    for name, value in azurite_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return azurite_server.url(f"http://127.0.0.1:{azure_port}", f"region-{next(_numbers)}/north")


@pytest.fixture
def faults(s3_port: int) -> Generator[tuple[int, Script]]:
    with fault_proxy(s3_port) as running:
        yield running


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each backend that keeps objects itself."""
    match request.param:
        case "memory":
            return MemoryBackend()
        case "local":
            return LocalBackend(tmp_path / "region" / "archive")
        case "azure":
            return plain_backend(request.getfixturevalue("azure_url"))
        case _:
            return plain_backend(request.getfixturevalue("s3_url")())


@pytest.fixture(params=LAYERS)
def backend(place: Backend, request: pytest.FixtureRequest) -> Backend:
    """Each of those, bare and under each decorator."""
    return LAYERS[request.param](place)
