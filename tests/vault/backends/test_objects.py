"""A bucket's own troubles, on a real S3 server with a proxy in between that makes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from midstep.vault.backends import objects
from midstep.vault.backends.base import Backend
from midstep.vault.backends.open import open_backend, plain_backend
from midstep.vault.errors import (
    BackendDenied,
    BackendFull,
    BackendUnreachable,
    ObjectExists,
    ObjectMissing,
    ObjectTorn,
)
from tests.vault.backends.fault_proxy import Fault, Script
from tests.vault.backends.kit import noise, retrying

Faults = tuple[int, Script]


@pytest.fixture
def far(s3_url: Callable[..., str], faults: Faults) -> Backend:
    """The bucket, through the proxy."""
    return plain_backend(s3_url(faults[0]))


def uses(backend: Backend) -> dict[str, Callable[[], object]]:
    return {
        "PUT": lambda: backend.put("a", b"new"),
        "GET": lambda: backend.get("a"),
        "HEAD": lambda: backend.size("a"),
        "DELETE": lambda: backend.delete("a"),
        "list": lambda: list(backend.list()),
    }


@pytest.mark.parametrize("use", ["PUT", "GET", "HEAD", "DELETE", "list"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503, code="SlowDown"),
        Fault(status=429, code="TooManyRequests"),
        Fault(cut_upload_at=0),
        Fault(lose_answer=True),
    ],
    ids=["500", "503", "429", "cut", "answer lost"],
)
def test_one_trouble_is_told_and_again_helps(far: Backend, faults: Faults, use: str, fault: Fault) -> None:
    far.put("a", b"old")
    faults[1].faults.append(fault)
    with pytest.raises(BackendUnreachable, match="in s3://vault/region-"):
        uses(far)[use]()
    assert faults[1].faults == []
    far.put("a", b"old")
    faults[1].faults.append(fault)
    uses(retrying(far))[use]()
    assert faults[1].faults == []


def test_a_slow_server_is_not_waited_for(s3_url: Callable[..., str], faults: Faults) -> None:
    port, script = faults
    impatient = plain_backend(s3_url(port, timeout_s=0.5))
    impatient.put("a", b"x")
    script.faults.append(Fault(hang=True))
    with pytest.raises(BackendUnreachable, match="reading a"):
        impatient.get("a")
    script.faults.append(Fault(hang=True))
    assert retrying(impatient).get("a") == b"x"


@pytest.mark.parametrize("use", ["whole", "range", "rest"])
def test_an_answer_cut_in_its_body_is_no_short_object(far: Backend, faults: Faults, use: str) -> None:
    data = noise(300_000)
    far.put("a", data)
    reads: dict[str, Callable[[Backend], bytes]] = {
        "whole": lambda backend: backend.get("a"),
        "range": lambda backend: backend.get("a", 0, 300_000),
        "rest": lambda backend: backend.get("a", 10),
    }
    faults[1].faults.append(Fault(method="GET", cut_answer_at=100_000))
    with pytest.raises(BackendUnreachable):
        reads[use](far)
    faults[1].faults += [Fault(method="GET", cut_answer_at=cut) for cut in (0, 1, 299_000)]
    assert reads[use](retrying(far)) == (data[10:] if use == "rest" else data)
    assert faults[1].faults == []


@pytest.mark.parametrize("cut", [0, 1, 100_000, 199_999])
def test_a_torn_upload_shows_nothing(far: Backend, faults: Faults, cut: int) -> None:
    faults[1].faults.append(Fault(method="PUT", cut_upload_at=cut))
    with pytest.raises(BackendUnreachable):
        far.put("a", noise(200_000))
    with pytest.raises(ObjectMissing):
        far.get("a")
    far.put("a", b"old")
    faults[1].faults.append(Fault(method="PUT", cut_upload_at=cut))
    with pytest.raises(BackendUnreachable):
        far.put("a", noise(200_000))
    assert far.get("a") == b"old"


def test_a_list_may_lag_but_names_do_not(far: Backend, faults: Faults) -> None:
    far.put("packs/a", b"1")
    far.put("packs/b", b"22")
    faults[1].hidden.add("packs/b")
    assert [info.name for info in far.list()] == ["packs/a"]
    assert (far.get("packs/b"), far.size("packs/b")) == (b"22", 2)
    with pytest.raises(ObjectExists):
        far.create("packs/b", b"x")
    faults[1].hidden.clear()
    assert [info.name for info in far.list()] == ["packs/a", "packs/b"]


def test_a_list_of_many_pages(far: Backend) -> None:
    names = [f"packs/{number:04}" for number in range(1030)]  # a page of S3 has 1000
    for name in names:
        far.put(name, b"")
    assert [info.name for info in far.list("packs")] == names


def test_a_creator_whose_answer_was_lost_is_not_fenced_by_itself(far: Backend, faults: Faults) -> None:
    faults[1].faults.append(Fault(method="PUT", lose_answer=True))
    retrying(far).create("fences/job", b"owner 1, token 5f")
    assert far.get("fences/job") == b"owner 1, token 5f"
    assert sum(request.startswith("PUT") for request in faults[1].requests) == 2


def test_a_creator_who_lost_while_its_answer_was_lost_is_told(far: Backend, faults: Faults) -> None:
    far.create("fences/job", b"owner 2, token 77")
    faults[1].faults.append(Fault(method="PUT", lose_answer=True))
    with pytest.raises(ObjectExists):
        retrying(far).create("fences/job", b"owner 1, token 5f")
    assert far.get("fences/job") == b"owner 2, token 77"


def test_equal_bytes_are_somebody_elses_if_the_first_try_was_answered(far: Backend) -> None:
    far.create("fences/job", b"same")
    with pytest.raises(ObjectExists):
        retrying(far).create("fences/job", b"same")


def test_creators_that_collide_in_the_store_come_again(far: Backend, faults: Faults) -> None:
    """S3 answers 409 to a conditional write while another one of that name is under way, whoever wins."""
    faults[1].faults.append(Fault(method="PUT", status=409, code="ConditionalRequestConflict"))
    with pytest.raises(BackendUnreachable, match="asks to come again"):
        far.create("a", b"x")
    far.create("a", b"x")


def test_large_objects_go_up_in_parts(far: Backend, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MULTIPART_BYTES", 12 << 20)
    monkeypatch.setattr(objects, "PART_BYTES", 6 << 20)
    data = noise(14 << 20)
    far.put("a", data)
    assert sum("partNumber=" in request for request in faults[1].requests) == 3
    assert far.get("a") == data
    # a part that fails: the object is the old one, and the server is told to forget the parts
    faults[1].faults.append(Fault(contains="partNumber=2", status=500))
    with pytest.raises(BackendUnreachable):
        far.put("a", data[::-1])
    assert far.get("a") == data
    assert any(r.startswith("DELETE") and "uploadId=" in r for r in faults[1].requests)
    retrying(far).put("a", data[::-1])
    assert far.get("a") == data[::-1]


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault(status=403, code="AccessDenied"), BackendDenied, "credentials must allow"),
        (Fault(status=401, code="Unauthorized"), BackendDenied, "credentials must allow"),
        (Fault(status=507, code="XMinioStorageFull"), BackendFull, "raise its quota"),
        (Fault(status=400, code="InvalidRequest"), BackendDenied, "check the vault's URL"),
    ],
)
@pytest.mark.parametrize("use", ["PUT", "GET", "HEAD", "DELETE", "list"])
def test_refusals_are_not_tried_again(
    far: Backend, faults: Faults, use: str, fault: Fault, error: type[Exception], words: str
) -> None:
    if use == "HEAD" and fault.status == 507:
        pytest.skip("reading needs no space")
    faults[1].faults.append(fault)
    with pytest.raises(error, match=words):
        uses(retrying(far))[use]()
    assert len(faults[1].requests) == 1


def test_a_bucket_that_is_not_there_is_named(s3_url: Callable[..., str]) -> None:
    url = s3_url().replace("s3://vault/", "s3://nobodys/")
    with pytest.raises(BackendDenied, match=r"s3://nobodys/region.*bucket does not exist: make it"):
        open_backend(url)
    for use in ("PUT", "GET", "DELETE", "list"):
        with pytest.raises(BackendDenied, match="does not exist"):
            uses(plain_backend(url))[use]()


def test_a_server_that_is_not_there_is_named(s3_url: Callable[..., str]) -> None:
    nobody = retrying(plain_backend(s3_url(port=1)), tries=3)
    with pytest.raises(BackendUnreachable, match=r"s3://vault/region-.*tried 3 times"):
        nobody.get("a")


def test_ranges_that_the_server_cuts_are_torn(far: Backend) -> None:
    far.put("a", b"0123456789")
    with pytest.raises(ObjectTorn, match="10 bytes"):
        far.get("a", 5, 100)


def test_messages_hold_no_debug_output(far: Backend, faults: Faults) -> None:
    faults[1].faults.append(Fault(status=500))
    with pytest.raises(BackendUnreachable) as caught:
        far.get("packs/a")
    assert "Debug source" not in str(caught.value) and "<?xml" not in str(caught.value)
    assert "reading packs/a in s3://vault/region-" in str(caught.value)
