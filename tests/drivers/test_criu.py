"""What can go wrong around a dump, and jobs that are more than one process tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from midstep.agent.drivers import kernel, launch
from midstep.agent.drivers.errors import Blame, Kind, RankGone, Refused, TooSlow
from midstep.agent.drivers.procfs import enter_with_node_proc, sees_node
from tests.drivers.nodes import STATE, Job, Node

COUNTS = """
import hashlib, sys, time
memory = bytearray(b'abcdefgh' * (int(sys.argv[1]) << 17))
digest = hashlib.sha256()
for i in range(int(sys.argv[2])):
    memory[i * 5000 % len(memory)] = i % 256
    digest.update(str(i).encode())
    print('step', i, flush=True)
    time.sleep(0.02)
print(hashlib.sha256(memory).hexdigest(), digest.hexdigest())
"""
LINKS = """
import os, time
f = open(f'one-{os.environ["RANK"]}', 'w+'); f.write('linked'); f.flush()
os.link(f.name, f'two-{os.environ["RANK"]}'); os.unlink(f.name)
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.01)
f.seek(0); print(f.read(), sorted(n for n in os.listdir('.') if n != 'go'))
"""


GHOSTS = """
import mmap, os, time
rank = os.environ['RANK']
f = open('same', 'w+')
f.write('ghost of ' + rank)
f.flush()
os.unlink('same')
shm = open('/dev/shm/same', 'w+b')
shm.truncate(5000)
view = mmap.mmap(shm.fileno(), 5000)
view[:8] = b'shared ' + rank.encode()
os.unlink('/dev/shm/same')
print('ready', flush=True)
while not os.path.exists('go'): time.sleep(0.01)
f.seek(0)
print(f.read())
print(view[:8].decode())
"""


def in_node(job: Job, rank: int = 0, deadline_s: float = 20, images: Path = STATE / "images") -> object:
    return job.node.do(lambda: job.criu.dump(job.processes[rank], images, deadline_s))


@pytest.fixture
def small_disk(nodes: tuple[Node, Node]) -> Iterator[Path]:
    folder = STATE / "small"
    nodes[0].do(lambda: (folder.mkdir(), kernel.mount("small", str(folder), "tmpfs", 0, "size=16m")))
    yield folder
    nodes[0].do(lambda: kernel.unmount(str(folder)))


def test_a_full_disk_is_explained_and_the_job_goes_on(new_job: Callable[..., Job], small_disk: Path) -> None:
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "64", "40"])
    job.wait_for("step 5")
    frozen = job.freeze()
    with pytest.raises(Refused) as refused:
        in_node(job, images=small_disk / "images")
    assert (refused.value.refusal.kind, refused.value.refusal.blame) == (Kind.DISK_FULL, Blame.NODE)
    assert job.node.do(lambda: os.listdir(small_disk / "images")) == []
    job.thaw(frozen)
    assert job.finish() == 0
    assert job.log().splitlines()[-1] == result_of("64", "40")


def test_a_dump_that_is_too_slow_is_stopped_and_the_job_goes_on(
    new_job: Callable[..., Job], nodes: tuple[Node, Node]
) -> None:
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "150", "40"])
    job.wait_for("step 5")
    for milliseconds in range(5, 55, 5):
        frozen = job.freeze()
        with pytest.raises(TooSlow):
            in_node(job, deadline_s=milliseconds / 1000)
        assert os.listdir(nodes[0].disk / "images") == []
        job.thaw(frozen)
        assert not sees_node(job.processes[0].init_pid)
    job.move(nodes[1])
    assert job.finish() == 0
    assert job.log().splitlines()[-1] == result_of("150", "40")


def test_criu_is_killed_in_the_middle(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "150", "40"])
    job.wait_for("step 5")
    frozen = job.freeze()
    killer = threading.Thread(target=kill_when_traced, args=(job.processes[0].init_pid,))
    killer.start()
    with pytest.raises(Refused):
        in_node(job)
    killer.join()
    job.thaw(frozen)
    assert job.finish() == 0
    assert job.log().splitlines()[-1] == result_of("150", "40")


def test_an_agent_that_died_in_a_dump_leaves_a_rank_that_can_be_thawed(new_job: Callable[..., Job]) -> None:
    job = new_job()
    job.start(
        [sys.executable, "-c", "print('ready', flush=True); input('x') if 0 else __import__('time').sleep(9)"]
    )
    job.wait_for("ready")
    p = job.processes[0]
    frozen = job.freeze()
    kernel.apart(lambda: enter_with_node_proc(p.init_pid), "dies-here")
    assert sees_node(p.init_pid)
    job.thaw(frozen)
    assert not sees_node(p.init_pid)
    assert Path(f"/proc/{p.init_pid}/root/proc/1/comm").read_text() == "sh\n"


def test_names_that_criu_lends_are_given_back(new_job: Callable[..., Job], nodes: tuple[Node, Node]) -> None:
    """Two ranks of one home; a snapshot after which they go on, then a move."""
    job = new_job()
    for rank in (0, 1):
        job.start([sys.executable, "-c", LINKS], rank=rank)
        job.wait_for("ready", rank)
    frozen = job.freeze()
    with ThreadPoolExecutor() as pool:
        dumps = [
            pool.submit(job.criu.dump, job.processes[rank], nodes[0].disk / f"images-{rank}", 20)
            for rank in (0, 1)
        ]
        for dump in dumps:
            dump.result()
    assert len(list((job.outside / "work").glob("link_r0*"))) == 2
    job.thaw(frozen)
    assert sorted(os.listdir(job.outside / "work")) == ["two-0", "two-1"]
    job.move(nodes[1])
    assert sorted(os.listdir(job.outside / "work")) == ["two-0", "two-1"]
    (job.outside / "work" / "go").touch()
    for rank in (0, 1):
        assert job.finish(rank) == 0
        assert job.log(rank) == "ready\nlinked ['two-0', 'two-1']\n"


def test_dumped_twice_while_it_stands_still(new_job: Callable[..., Job], nodes: tuple[Node, Node]) -> None:
    """As an agent does that has lost the first dump, or that must dump a rank it has just restored."""
    job = new_job()
    job.start([sys.executable, "-c", COUNTS, "2", "40"])
    job.wait_for("step 5")
    frozen = job.freeze()
    in_node(job)
    in_node(job)
    job.thaw(frozen)
    job.move(nodes[1], thaw=False)
    in_node(job)
    job.thaw(job.freeze())
    assert job.finish() == 0
    assert job.log().splitlines()[-1] == result_of("2", "40")


def test_a_rank_that_has_ended_is_not_dumped(new_job: Callable[..., Job], nodes: tuple[Node, Node]) -> None:
    job = new_job()
    job.start(["true"])
    job.finish()
    with pytest.raises(RankGone):
        in_node(job)


def test_ranks_of_one_home_with_deleted_files_of_one_name(
    new_job: Callable[..., Job], nodes: tuple[Node, Node]
) -> None:
    job = new_job()
    for rank in range(3):
        job.start([sys.executable, "-c", GHOSTS], rank=rank)
        job.wait_for("ready", rank)
    job.move(nodes[1])
    assert os.listdir(job.outside / "work") == []
    (job.outside / "work" / "go").touch()
    for rank in range(3):
        assert job.finish(rank) == 0
        assert job.log(rank) == f"ready\nghost of {rank}\nshared {rank}\n"


def test_there_and_back_many_times(new_job: Callable[..., Job], nodes: tuple[Node, Node]) -> None:
    job = new_job(cpus=(0,))
    job.start([sys.executable, "-c", COUNTS, "2", "60"])
    job.wait_for("step 3")
    for turn in range(6):
        job.move(nodes[(turn + 1) % 2])
        for pid in launch.processes(job.processes[0]):
            assert os.sched_getaffinity(pid) == {0}
        time.sleep(0.05)
    assert job.finish() == 0
    assert job.log().splitlines()[-1] == result_of("2", "60")


def test_restored_ranks_do_not_depend_on_who_restored_them(
    new_job: Callable[..., Job], nodes: tuple[Node, Node]
) -> None:
    """Nothing of ours is above a restored rank but whoever adopts orphans, and a kill takes all of it."""
    job = new_job()
    job.start(["sh", "-c", "sleep 60 & sleep 60 & echo ready; wait"])
    job.wait_for("ready")
    job.move(nodes[1])
    p = job.processes[0]
    pids = launch.processes(p)
    assert len(pids) == 4
    parent = int(launch.stat_of(f"/proc/{p.init_pid}/stat")[1])
    assert "criu" not in Path(f"/proc/{parent}/comm").read_text()
    job.kill()
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)


def result_of(*argv: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", COUNTS, *argv], capture_output=True, text=True
    ).stdout.splitlines()[-1]


def kill_when_traced(init_pid: int) -> None:
    while True:
        lines = Path(f"/proc/{init_pid}/status").read_text().splitlines()
        tracer = next(int(line.split()[1]) for line in lines if line.startswith("TracerPid"))
        if tracer:
            time.sleep(0.05)
            os.kill(tracer, signal.SIGKILL)
            return
