"""Snapshots as streams between archives: only what is missing travels, what came before a cut stays, and
damage on the other side is told from a cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from midstep.vault.archive import shipping
from midstep.vault.archive.archive import Archive
from midstep.vault.archive.check import check
from midstep.vault.archive.manifest import ArchivedSnapshot, decode, encode
from midstep.vault.archive.shipping import Shipped, StreamCut, frames, join_ids, pieces, receive, split_ids
from midstep.vault.errors import Damaged
from midstep.vault.snapshots import Snapshots
from tests.vault.archive.harness import archive_at, contents, flip, objects, store, write_raw


@pytest.fixture
def raw(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "vault")


@pytest.fixture
def there(raw: Snapshots, tmp_path: Path) -> Archive:
    """The archive of the region that the job is in."""
    archive = archive_at(tmp_path / "there")
    write_raw(raw, "j-1-1", 1, mib=8)
    store(raw, archive, "j-1-1")
    return archive


class Line:
    """What the HTTP connection does, with the errors that a test wants."""

    def __init__(self, source: Archive, cut_after: int | None = None) -> None:
        self.source, self.cut_after = source, cut_after
        self.asked: list[int] = []
        self.nbytes = 0

    def fetch(self, ids: Sequence[bytes]) -> Iterable[bytes]:
        self.asked.append(len(ids))
        return pieces(self._stream(split_ids(join_ids(ids))))

    def _stream(self, ids: Sequence[bytes]) -> Iterator[bytes]:
        for body in frames(self.source, ids):
            for at in range(0, len(body), 100_003):  # frames do not end where packets do
                self.nbytes += len(body[at : at + 100_003])
                if self.cut_after is not None and self.nbytes > self.cut_after:
                    raise ConnectionError("cut")
                yield body[at : at + 100_003]


def bring(line: Line, archived: ArchivedSnapshot, target: Archive) -> Shipped:
    return receive(target, archived, line.fetch, lambda now: None)


def test_all_of_it_once_and_then_only_what_is_new(raw: Snapshots, there: Archive, tmp_path: Path) -> None:
    here = archive_at(tmp_path / "here")
    archived = decode(encode(there.load("j-1-1")), "sent")
    first = bring(Line(there), archived, here)
    assert first.known_bytes == 0 and first.left_bytes == 0 and first.chunks == len(set(archived.ids()))
    here.restore(here.load("j-1-1"), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(raw.path("j-1-1"))
    assert bring(Line(there), archived, here).again
    memory = (raw.path("j-1-1") / "rank-0" / "pages-1.img").read_bytes()
    write_raw(raw, "j-1-2", 2, memory=memory, mib=1)
    line = Line(there)
    second = bring(line, store(raw, there, "j-1-2"), here)
    assert second.sent_bytes < first.sent_bytes / 2 and second.known_bytes > 0.7 * len(memory)
    assert second.sent_bytes <= line.nbytes < second.sent_bytes * 1.1
    assert check(here, deep=True) == []


@pytest.mark.parametrize("cut_after", [0, 3_000_000, 9_000_000])
def test_a_cut_stream_goes_on_where_it_ended(there: Archive, tmp_path: Path, cut_after: int) -> None:
    here, archived = archive_at(tmp_path / "here"), there.load("j-1-1")
    with pytest.raises(ConnectionError, match="cut"):
        bring(Line(there, cut_after), archived, here)
    assert not here.exists("j-1-1") and not list(here.backend.list("leases"))
    again = Line(there)
    done = bring(again, archived, archive_at(tmp_path / "here"))  # of another process
    assert done.known_bytes >= cut_after - 2_000_000  # all but the last pieces of a body
    assert done.known_bytes > 0 or cut_after == 0
    assert check(here, deep=True) == []


def test_a_stream_without_its_end_was_cut(there: Archive, tmp_path: Path) -> None:
    ids = sorted(set(there.load("j-1-1").ids()))
    whole = b"".join(frames(there, ids))
    for length in (0, 3, 50_000, len(whole) - 1):
        with pytest.raises(StreamCut):
            list(pieces([whole[:length]]))
    assert len(list(pieces([whole]))) == len(ids)
    with pytest.raises(StreamCut, match="no stream of chunks"):
        list(pieces([b"<html>not a stream</html>"]))


def test_damage_over_there_is_told(there: Archive, tmp_path: Path) -> None:
    for path in objects(tmp_path / "there" / "packs"):
        flip(path, 5)
        flip(path, 500_000)
    with pytest.raises(Damaged):
        bring(Line(there), there.load("j-1-1"), archive_at(tmp_path / "here"))
    for path in objects(tmp_path / "there" / "packs"):
        path.unlink()
    lost = archive_at(tmp_path / "there")
    with pytest.raises(Damaged):
        bring(Line(lost), lost.load("j-1-1"), archive_at(tmp_path / "here"))
    assert not archive_at(tmp_path / "here").exists("j-1-1")


def test_nothing_is_collected_while_it_is_sent(there: Archive) -> None:
    stream = frames(there, sorted(set(there.load("j-1-1").ids())))
    next(stream)
    assert list(there.backend.list("leases"))
    list(stream)
    assert not list(there.backend.list("leases"))


def test_ids_that_are_none() -> None:
    with pytest.raises(ValueError, match="33 bytes"):
        split_ids(bytes(33))
    assert shipping.split_ids(b"") == []
