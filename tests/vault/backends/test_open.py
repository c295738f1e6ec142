"""URLs and keys: what opens what, and what is said when nothing does."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from midstep.vault.backends.keys import find_key, parse_key, read_key
from midstep.vault.backends.objects import ObjectStoreBackend
from midstep.vault.backends.open import open_backend, plain_backend
from midstep.vault.errors import WrongKey
from tests.vault.backends.kit import KEY


def test_a_path_and_a_file_url_are_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_backend(str(tmp_path / "my vault")).put("a", b"x")
    assert open_backend(f"file://{tmp_path}/my%20vault").get("a") == b"x"
    monkeypatch.chdir(tmp_path)
    relative = open_backend("my vault")
    monkeypatch.chdir("/")
    assert relative.get("a") == b"x"


def test_opening_and_reading_make_no_folder(tmp_path: Path) -> None:
    assert list(open_backend(str(tmp_path / "mistyped")).list()) == []
    assert not (tmp_path / "mistyped").exists()


def test_memory_is_new_each_time() -> None:
    open_backend("memory://").put("a", b"x")
    assert list(open_backend("memory://").list()) == []


def test_a_bucket(s3_url: Callable[..., str]) -> None:
    first = open_backend(s3_url(), key=KEY)
    first.create("a", b"x")
    assert open_backend(s3_url(), key=KEY).get("a") == b"x"
    assert first.describe().startswith("s3://vault/region-") and "endpoint" not in first.describe()
    with pytest.raises(WrongKey, match="s3://vault/region-"):
        open_backend(s3_url())


def test_prefixes_do_not_mix(s3_url: Callable[..., str]) -> None:
    north, south = s3_url(), s3_url().replace("/north?", "/north2?")
    open_backend(north).put("a", b"n")
    open_backend(south).put("a", b"s")
    assert (open_backend(north).get("a"), open_backend(south).get("a")) == (b"n", b"s")
    assert [info.name for info in open_backend(north).list()] == ["a"]
    assert [info.name for info in open_backend(north.replace("/north?", "?")).list()] == [
        "north/a",
        "north2/a",
    ]


@pytest.mark.parametrize("url", ["gs://bucket/prefix", "az://account/container/prefix"])
def test_other_clouds_are_put_together(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of them here: neither has a server that could be run in a test."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(bytes(32)).decode())
    backend = plain_backend(url)
    assert isinstance(backend, ObjectStoreBackend) and backend.describe() == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "ftp://host/x is no vault: /path"),
        ("s3:///x", "is no vault"),
        ("file://host/x", "is no vault"),
        ("s3://bucket/x?endpont=http://h", "unknown endpont; there are endpoint, region, timeout_s"),
        ("gs://bucket/x?region=eu", "unknown region; there are timeout_s"),
        ("s3://bucket/x?timeout_s=soon", "timeout_s=soon is no number of seconds"),
        ("s3://bucket/x?timeout_s=0", "timeout_s=0 is no number of seconds"),
        ("s3://bucket/a//b", "no name of an object"),
        ("az://account", "names no container"),
    ],
)
def test_what_is_no_url_is_told(url: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_backend(url)
    assert words in str(caught.value)


def test_secrets_in_a_url_are_not_shown() -> None:
    with pytest.raises(ValueError) as caught:
        open_backend("s3://AKIA:secret@bucket/x")
    assert str(caught.value).startswith("s3://bucket/x: credentials and ports are not part of it")


@pytest.mark.parametrize(
    "content",
    [KEY, KEY.hex().encode() + b"\n", base64.b64encode(KEY) + b"\n", b" " + KEY.hex().upper().encode()],
)
def test_keys_in_every_form(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert (
        read_key(path) == find_key(path, {}) == find_key(None, {"MIDSTEP_VAULT_KEY_FILE": str(path)}) == KEY
    )


def test_a_key_in_the_environment(tmp_path: Path) -> None:
    assert find_key(None, {"MIDSTEP_VAULT_KEY": KEY.hex()}) == KEY
    assert find_key(None, {}) is None
    assert find_key(None, {"MIDSTEP_VAULT_KEY": "", "MIDSTEP_VAULT_KEY_FILE": ""}) is None


@pytest.mark.parametrize("content", [b"", b"password", KEY.hex()[:-1].encode(), base64.b64encode(KEY[:-1])])
def test_what_is_no_key_is_told_and_not_shown(content: bytes) -> None:
    with pytest.raises(WrongKey, match="variable X holds no key: 64 hex digits") as caught:
        parse_key(content, "variable X")
    assert not content or content.decode() not in str(caught.value)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY.hex())
    path.chmod(0o640)
    with pytest.raises(WrongKey, match=re.escape(f"chmod 600 {path}")):
        read_key(path)
    with pytest.raises(WrongKey, match=r"No such file.*openssl rand -hex 32"):
        read_key(tmp_path / "none")
