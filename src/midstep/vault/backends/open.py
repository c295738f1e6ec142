"""A backend from its URL."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from midstep.vault.backends.base import Backend, check_name
from midstep.vault.backends.local import LocalBackend
from midstep.vault.backends.memory import MemoryBackend
from midstep.vault.backends.objects import ObjectStoreBackend, Store
from midstep.vault.backends.retrying import Retrying
from midstep.vault.backends.sealed import open_sealed
from midstep.vault.errors import BackendDenied, BackendError

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, RetryConfig, S3Config

FORMS = (
    "/path, file:///path, memory://, s3://BUCKET/PREFIX[?endpoint=URL&region=REGION&timeout_s=120], "
    "gs://BUCKET/PREFIX, az://ACCOUNT/CONTAINER/PREFIX[?endpoint=URL]"
)
TIMEOUT_S = 120.0  # of one request, body included: 16 MiB at 1.1 Mbit/s
_OPTIONS = {"s3": {"endpoint", "region", "timeout_s"}, "gs": {"timeout_s"}, "az": {"endpoint", "timeout_s"}}


def open_backend(url: str, *, key: bytes | None = None) -> Backend:
    """The backend at a URL (FORMS), retrying, and through its encryption: `key` is keys.py's.

    Asks the place once whether it is encrypted, so what is wrong with URL, credentials or key is said here:
    ValueError, WrongKey, FormatUnknown, BackendDenied, BackendUnreachable. `memory://` is a new, empty one
    each time.
    """
    return open_sealed(Retrying(plain_backend(url)), key)


def plain_backend(url: str) -> Backend:
    """The backend at a URL, bare. Asks nobody anything. ValueError, BackendDenied."""
    if "://" not in url:
        return _local(Path(url).expanduser().absolute())
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return MemoryBackend()
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return _local(Path(unquote(parts.path)))
    if parts.scheme not in _OPTIONS or not parts.netloc:
        raise ValueError(f"{_shown(parts)} is no vault: {FORMS}")
    if "@" in parts.netloc or ":" in parts.netloc:
        raise ValueError(f"{_shown(parts)}: credentials and ports are not part of it: {FORMS}")
    try:
        return ObjectStoreBackend(_store(parts), _shown(parts))
    except BaseError as error:
        raise BackendDenied(f"cannot use the vault {_shown(parts)}: {str(error).splitlines()[0]}") from error


def _local(root: Path) -> LocalBackend:
    backend = LocalBackend(root)
    with contextlib.suppress(BackendError):  # who may only read cannot clear up, and need not
        backend.sweep()
    return backend


def _store(parts: SplitResult) -> Store:
    options = _options(parts)
    endpoint = options.get("endpoint", "")
    client: ClientConfig = {
        "timeout": f"{int(_timeout_s(parts, options) * 1000)}ms",
        "connect_timeout": "10s",
        "allow_http": endpoint.startswith("http://"),
    }
    prefix = unquote(parts.path).strip("/")
    if prefix:
        check_name(prefix)
    match parts.scheme:
        case "s3":
            return _s3(parts.netloc, prefix, options, client)
        case "gs":
            return GCSStore(parts.netloc, prefix=prefix or None, client_options=client, retry_config=_ONCE)
        case _:
            container, _, rest = prefix.partition("/")
            if not container:
                raise ValueError(f"{_shown(parts)} names no container: {FORMS}")
            azure: AzureConfig = {"account_name": parts.netloc}
            if endpoint:
                azure["endpoint"] = endpoint
            return AzureStore(
                container, prefix=rest or None, config=azure, client_options=client, retry_config=_ONCE
            )


_ONCE: RetryConfig = {"max_retries": 0}


def _s3(bucket: str, prefix: str, options: dict[str, str], client: ClientConfig) -> S3Store:
    config: S3Config = {
        "disable_bulk_delete": True
    }  # GCS and others that speak S3 lack it; and one is deleted at a time
    if "endpoint" in options:
        config["endpoint"] = options["endpoint"]
        config["virtual_hosted_style_request"] = False
    if "region" in options:
        config["region"] = options["region"]
    return S3Store(bucket, prefix=prefix or None, config=config, client_options=client, retry_config=_ONCE)


def _options(parts: SplitResult) -> dict[str, str]:
    known = _OPTIONS[parts.scheme]
    found = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if unknown := sorted(set(found) - known):
        raise ValueError(
            f"{_shown(parts)}: unknown {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )
    return found


def _timeout_s(parts: SplitResult, options: dict[str, str]) -> float:
    given = options.get("timeout_s", "")
    try:
        timeout_s = float(given or TIMEOUT_S)
    except ValueError:
        timeout_s = 0.0
    if not 0.001 <= timeout_s < float("inf"):
        raise ValueError(f"{_shown(parts)}: timeout_s={given} is no number of seconds")
    return timeout_s


def _shown(parts: SplitResult) -> str:
    """The URL without what may be a secret."""
    where = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{where}{parts.path}"
