"""The parts that need no process: the next move, the journal, log bytes to send, what an archive may hold."""

from __future__ import annotations

import asyncio
import base64
import io
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstep.agent.config import load
from midstep.agent.drivers.launch import RankProcess, process_at
from midstep.agent.errors import ConfigError, TransferError
from midstep.agent.journal import Aim, JobEntry, Journal
from midstep.agent.logs import LogShipper, last_lines
from midstep.agent.plan import Live, Move, aim_of, next_move
from midstep.agent.steps.base import failure_of
from midstep.agent.transfer import unpack
from midstep.agent.trash import Trash
from midstep.agent.watch import Watch
from midstep.model.job import JobSpec, NodePlace, RankPlace, SnapshotRef
from midstep.model.phase import Failure, Fault, Goal, Phase, StepTiming
from midstep.wire.agent import Assignment

PLACE = NodePlace("a", 0, (RankPlace(0, 0, 0, 1, (0,)),))
SPEC = JobSpec(("true",))
RANK = {0: RankProcess(0, 4711, 99)}
ALIVE = Live(frozenset({0}), proxy=True, files=True)


def entry(phase: Phase, epoch: int = 3, **more: object) -> JobEntry:
    return replace(JobEntry("j", epoch, phase, SPEC, PLACE, processes=RANK, boot="b"), **more)  # type: ignore[arg-type]


def want(goal: Goal, epoch: int = 3, **more: object) -> Assignment:
    return Assignment("j", epoch, goal, SPEC, PLACE, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("here", "live", "wanted", "move"),
    [
        (None, Live(), want(Goal.HOLD), Move.HOLD),
        (None, Live(), want(Goal.RUN), Move.REFUSE),
        (None, Live(), want(Goal.GONE), Move.END),
        (entry(Phase.HELD), ALIVE, want(Goal.RUN), Move.START),
        (entry(Phase.HELD), replace(ALIVE, proxy=False), want(Goal.RUN), Move.LOSE),
        (entry(Phase.RUNNING), ALIVE, want(Goal.DUMP, target="s"), Move.DUMP),
        (entry(Phase.DUMPED, target="s"), ALIVE, want(Goal.DUMP, target="s"), Move.NOTHING),
        (entry(Phase.DUMPED, target="s"), ALIVE, want(Goal.DUMP, target="t"), Move.DUMP),
        (entry(Phase.DUMPED, target="s"), ALIVE, want(Goal.RUN), Move.RESUME),
        (entry(Phase.RUNNING), ALIVE, want(Goal.HOLD, 4), Move.ADOPT),
        (entry(Phase.RUNNING), ALIVE, want(Goal.HOLD, 4, source=SnapshotRef("s", "n")), Move.CLEAR),
        (entry(Phase.DUMPED, cut="s"), ALIVE, want(Goal.HOLD, 4, source=SnapshotRef("s", "n")), Move.ADOPT),
        (entry(Phase.PROXY_LOST, processes={}), Live(files=True), want(Goal.HOLD, 4), Move.CLEAR),
        (entry(Phase.ENDING, processes={}), Live(), want(Goal.HOLD, 4), Move.HOLD),
        (entry(Phase.RUNNING, processes={}, exits={0: 0}), Live(files=True), want(Goal.HOLD, 4), Move.ADOPT),
        (entry(Phase.GONE), Live(), want(Goal.HOLD, 4), Move.HOLD),
        (None, Live(), want(Goal.HOLD, adopt=True), Move.REFUSE),
        (entry(Phase.RUNNING), ALIVE, want(Goal.HOLD, 4, adopt=True), Move.ADOPT),
        (entry(Phase.GONE), Live(), want(Goal.HOLD, 4, adopt=True), Move.REFUSE),
        (entry(Phase.DUMPED), Live(files=True), want(Goal.HOLD, 4, adopt=True), Move.REFUSE),
        (entry(Phase.PROXY_LOST, processes={}), Live(files=True), want(Goal.HOLD, 4, adopt=True), Move.CLEAR),
        (entry(Phase.GONE), Live(), want(Goal.HOLD, 3), Move.NOTHING),
        (entry(Phase.GONE), Live(), None, Move.FORGET),
        (entry(Phase.RUNNING), ALIVE, None, Move.NOTHING),
        (entry(Phase.RUNNING), ALIVE, want(Goal.GONE, 2), Move.NOTHING),
    ],
)
def test_the_next_move(here: JobEntry | None, live: Live, wanted: Assignment | None, move: Move) -> None:
    assert next_move(here, live, wanted) is move


@given(st.sampled_from(Phase), st.sampled_from(Goal), st.integers(1, 5), st.booleans())
def test_fences_hold_and_a_failed_aim_is_not_tried_twice(
    phase: Phase, goal: Goal, epoch: int, proxy: bool
) -> None:
    live, wanted = replace(ALIVE, proxy=proxy), want(goal, epoch, target="s")
    if epoch < 3:
        assert next_move(entry(phase), live, wanted) is Move.NOTHING
    failed = entry(Phase.FAILED, tried=aim_of(wanted), failure=Failure("dump", "", Fault.TRANSIENT))
    assert next_move(failed, live, wanted) is Move.NOTHING


def test_a_torn_record_is_none_and_takes_its_files_with_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(entry(Phase.RUNNING))
    home = journal.home("j", 0)
    home.mkdir()
    for torn in (b"", (journal.folder("j") / "entry.json").read_bytes()[:-20]):
        home.mkdir(parents=True, exist_ok=True)
        (journal.folder("j") / "entry.json").write_bytes(torn)
        assert Journal(tmp_path).load() == []
        assert not journal.folder("j").exists(), "a later hold would start among its files"


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(entry(Phase.RUNNING))
    (journal.folder("j") / "entry.json").write_text('{"job": 1}')
    with pytest.raises(RuntimeError, match="another version"):
        Journal(tmp_path).load()


def test_what_is_thrown_away_is_gone_at_once_and_removed_by_whoever_comes_next(tmp_path: Path) -> None:
    trash = Trash(tmp_path / "trash")
    for _ in range(2):  # twice by the same name
        (tmp_path / "home" / "work").mkdir(parents=True)
        trash.take(tmp_path / "home")
        assert not (tmp_path / "home").exists()
    trash.take(tmp_path / "home")  # harmless
    left = tmp_path / "trash" / "of an agent that was killed" / "home"
    left.mkdir(parents=True)
    Trash(tmp_path / "trash").empty_soon()
    until(lambda: not list((tmp_path / "trash").iterdir()))


def test_a_death_is_told_once(tmp_path: Path) -> None:
    """A descriptor of a dead process stays readable: the loop must not spin on it."""

    async def told() -> int:
        child = await asyncio.create_subprocess_exec("sleep", "60")
        count = 0

        def ended() -> None:
            nonlocal count
            count += 1

        watch = Watch(ended)
        watch.follow([process_at(0, child.pid)])
        child.kill()
        await child.wait()
        await asyncio.sleep(0.1)
        watch.follow([])
        return count

    assert asyncio.run(told()) == 1


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), BrokenPipeError("pipe")])
def test_a_proxy_that_ends_is_no_fault_of_the_node(error: OSError) -> None:
    assert failure_of("drain", error, 1.0, intact=True).fault is Fault.TRANSIENT


def until(there: Callable[[], bool], limit_s: float = 30) -> None:
    end = time.monotonic() + limit_s
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    whole = entry(
        Phase.FAILED,
        exits={0: 3},
        frozen={"stopped_before": {"0": [5]}, "duration_s": 0.5},
        tried=Aim(3, Goal.DUMP, "s"),
        failure=Failure("dump", "no", Fault.NODE, intact=True),
        steps=(StepTiming("freeze", 0.5, 7),),
        log_floors={0: 12},
    )
    journal.save(whole)
    (tmp_path / "jobs" / "begun").mkdir()
    assert Journal(tmp_path).load() == [whole]
    journal.forget("j")
    assert Journal(tmp_path).load() == []


def shipped(shipper: LogShipper) -> list[tuple[int, bytes]]:
    return [(c.offset, base64.b64decode(c.data)) for c in shipper.chunks()]


def test_a_log_is_sent_once_and_from_where_the_controller_has_it(tmp_path: Path) -> None:
    log, shipper = tmp_path / "log", LogShipper()
    log.write_bytes(b"0123456789")
    shipper.anchor("j", 1, 0, log, has_bytes=4, floor=None)
    assert not shipper.shipped("j", 0)
    assert shipped(shipper) == [(4, b"456789")] and shipped(shipper) == []
    assert shipper.shipped("j", 0)
    shipper.anchor("j", 1, 0, log, has_bytes=0, floor=None)  # once a session
    assert shipped(shipper) == []


def test_a_restored_log_is_rewound_even_when_it_has_grown_past_what_was_known(tmp_path: Path) -> None:
    log, shipper = tmp_path / "log", LogShipper()
    log.write_bytes(b"abc")
    shipper.anchor("j", 1, 0, log, has_bytes=7, floor=3)
    assert shipped(shipper) == [(3, b"")] and shipper.shipped("j", 0)
    log.write_bytes(b"abcDEFGHIJ")
    shipper.anchor("j", 2, 0, log, has_bytes=7, floor=3)
    assert shipped(shipper) == [(3, b"DEFGHIJ")]


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    secret, log, shipper = tmp_path / "secret", tmp_path / "log", LogShipper()
    secret.write_bytes(b"root only")
    log.symlink_to(secret)
    shipper.anchor("j", 1, 0, log, has_bytes=0, floor=None)
    assert b"".join(data for _, data in shipped(shipper)) == b""
    assert last_lines(log) == ()


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info


@pytest.mark.parametrize(
    "members",
    [
        [(member("../evil"), b"x")],
        [(member("/evil"), b"x")],
        [(member("a/../../evil"), b"x")],
        [(member("link", tarfile.SYMTYPE, ".."), b""), (member("link/evil"), b"x")],
        [(member("hard", tarfile.LNKTYPE, "../secret"), b"")],
        [(member("device", tarfile.CHRTYPE), b"")],
    ],
)
def test_an_archive_cannot_reach_out_of_its_folder(tmp_path: Path, members: list) -> None:
    (tmp_path / "secret").write_text("s")
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(TransferError):
        unpack(archive(*members), into, "r|")
    assert not (tmp_path / "evil").exists() and not (into / "hard").exists()


def test_an_archive_keeps_links_that_lead_elsewhere(tmp_path: Path) -> None:
    unpack(archive((member("x", tarfile.SYMTYPE, "/etc/hostname"), b""), (member("f"), b"1")), tmp_path, "r|")
    assert (tmp_path / "x").is_symlink() and (tmp_path / "f").read_bytes() == b"1"


def test_a_log_that_is_being_removed_is_not_taken_back(tmp_path: Path) -> None:
    log, shipper = tmp_path / "log", LogShipper()
    log.write_bytes(b"abc")
    shipper.anchor("j", 1, 0, log, has_bytes=0, floor=None)
    assert shipped(shipper) == [(0, b"abc")]
    log.unlink()
    assert shipped(shipper) == []


def test_a_configuration_that_is_wrong_says_where(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    with pytest.raises(ConfigError, match="cannot read"):
        load(path)
    path.write_text('{"name": "a"}')
    with pytest.raises(ConfigError, match="region"):
        load(path)
