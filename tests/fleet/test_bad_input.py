"""What users get wrong, and scripts that fail or hang: one clear message each, never a traceback, and an exit
code that a script can rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from midstep.client.types import JobView
from midstep.substrate.local.nodes import inhabitants
from midstep.substrate.local.processes import wait_for
from tests.fleet.harness import Fleet

FAILS = """
import sys, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.ones(4)
dist.all_reduce(value)
print("together", flush=True)
if dist.get_rank() == 2:
    print("no more data in shard 7", file=sys.stderr, flush=True)
    sys.exit(17)
dist.all_reduce(value)
time.sleep(1000)
"""
HANGS = """
import time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.ones(4)
dist.all_reduce(value)
print("together", flush=True)
if dist.get_rank() == 1:
    time.sleep(1000)
dist.all_reduce(value)
"""
BAD_FILES = {
    "command: [a, b\nname: x\n": "job.yaml:2:5: not YAML",
    "command: 'true'\ndevices: many\nbogus: 1\n": "job.yaml:2:10: devices: expected a whole number",
    "devices: 1\n": "there is no command",
    "": "job.yaml:1:1",
    "- a\n": "job.yaml:1:1",
    "command: 'true'\ncommand: 'false'\n": "job.yaml:2:1: command is given twice",
    "command: 'true'\nworkdir: nowhere\n": "nowhere is not a folder",
}
RUN = ("run", "--no-workdir")
BAD_WORDS = (
    ((*RUN, "--device-type", "quantum", "--", "true"), 6, "devices of type 'quantum'; there are cpu-1c"),
    ((*RUN, "--devices", "9", "--", "true"), 6, "9 devices; there are 4"),
    ((*RUN, "--devices", "3", "--node", "north-1", "--", "true"), 6, "there are 2 at north-1"),
    ((*RUN, "--node", "north-1", "--region", "south", "--", "true"), 6, "there are south-1, south-2"),
    ((*RUN, "--devices", "4", "--ranks", "3", "--", "true"), 6, "cannot be shared out evenly"),
    ((*RUN, "--devices", "0", "--", "true"), 2, "--devices"),
    ((*RUN, "--name", "a/b", "--", "true"), 6, "name"),
    ((*RUN, "--env", "=x", "--", "true"), 2, "--env"),
    ((*RUN, "--", "torchrun", "--nproc-per-node", "many", "train.py"), 6, "many"),
    ((*RUN,), 2, "COMMAND"),
    (("run", "--workdir", "/nonexistent", "--", "true"), 2, "/nonexistent is not a folder"),
    (("show", ""), 4, "there is no job ''"),
    (("show", "../jobs"), 4, "there is no job '../jobs'"),
    (("logs", "no-such-job"), 4, "no-such-job"),
    (("events", "--job", "no-such-job"), 4, "no-such-job"),
    (("frobnicate",), 2, "frobnicate"),
)


@pytest.fixture(scope="module", autouse=True)
def hung(fleet: Fleet) -> Iterator[JobView]:
    """A job one of whose ranks never joins. It takes half a minute to be sure of that: it starts before all
    other tests here."""
    job = fleet.run("python", "h.py", files={"h.py": HANGS}, devices=2, region="south", name="hung")
    fleet.until_logs(job, "together")
    yield job
    fleet.cancel(job)


@pytest.mark.parametrize(("words", "code", "said"), BAD_WORDS, ids=lambda value: str(value)[:40])
def test_words_that_cannot_be_meant(fleet: Fleet, words: tuple[str, ...], code: int, said: str) -> None:
    done = fleet.cli(*words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("content", "said"), BAD_FILES.items(), ids=lambda value: str(value)[:20])
def test_job_files(fleet: Fleet, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "job.yaml").write_text(content)
    done = fleet.cli("submit", "job.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    told = fleet.cli("submit", "--json", "job.yaml", cwd=tmp_path)
    assert said in json.loads(told.stderr)["error"]


def test_no_fleet(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    for words in (("ps",), ("nodes",), ("show", "x"), ("events",), ("run", "--no-workdir", "--", "true")):
        done = fleet.cli(*words)
        assert (done.returncode, done.stdout) == (3, "")
        assert f"there is no fleet in {tmp_path}" in done.stderr
    assert fleet.cli("down").returncode == 0


def test_one_rank_fails(fleet: Fleet, tmp_path: Path) -> None:
    """The others are stopped wherever they are; the failure is that rank's, with its last words and code."""
    (tmp_path / "fails.py").write_text(FAILS)
    done = fleet.cli("run", "-f", "--name", "fails", "--devices", "4", "fails.py", cwd=tmp_path)
    assert done.returncode == 17, done.stderr
    assert "2 | no more data in shard 7" in done.stdout
    assert "rank 2 ended with exit code 17" in done.stderr
    view = fleet.json("show", "fails")
    assert (view["state"], view["exit_code"]) == ("failed", 17)
    assert "rank 2" in view["failure"]
    assert view["last_lines"][-1] == "no more data in shard 7"
    assert {rank["rank"]: rank["exit_code"] for rank in view["ranks"]}[2] == 17
    assert "no more data in shard 7" in fleet.cli("show", "fails").stdout
    running = [i for i in inhabitants(fleet.paths) if "fails.py" in cmdline(i.identity.pid)]
    assert not running


@pytest.mark.soak
def test_one_rank_never_joins(fleet: Fleet, hung: JobView) -> None:
    """The hang is named: which collective, who has called it and who has not; the job still moves."""
    assert wait_for(lambda: fleet.json("show", "hung")["stalls"], 90, every_s=0.5)
    stall = fleet.json("show", "hung")["stalls"][0]
    assert (stall["posted"], stall["missing"]) == ([0], [1])
    shown = fleet.cli("show", "hung").stdout
    assert "ALLREDUCE of 16 bytes" in shown
    assert "posted by ranks 0; not by 1" in shown
    assert "stalled for" in fleet.cli("ps").stdout
    assert any(event["kind"] == "stall" for event in events(fleet, "hung"))
    assert fleet.migrate(hung, "north").state == "running"
    fleet.cancel(hung)


def events(fleet: Fleet, job: str) -> list[dict[str, object]]:
    """What happened to a job."""
    return [json.loads(line) for line in fleet.cli("events", "--json", "--job", job).stdout.splitlines()]


def test_everything_answers_in_json(fleet: Fleet) -> None:
    job = fleet.run("true", name="answers").job_id
    fleet.wait(job, "completed")
    for words in (("ps",), ("ps", "--all"), ("nodes",), ("show", job), ("version",)):
        done = fleet.cli(words[0], "--json", *words[1:])
        json.loads(done.stdout)
    for words in (("suspend", job), ("resume", job), ("migrate", job, "--to", "south"), ("show", "nobody")):
        done = fleet.cli(words[0], "--json", *words[1:])
        assert (done.returncode != 0, done.stdout) == (True, "")
        assert json.loads(done.stderr)["exit"] == done.returncode


def test_requests_that_meet_a_move(fleet: Fleet) -> None:
    """A command that is typed while the job is on its way ends too, with what became of it."""
    job = fleet.run("sleep", "1000", name="sleeper", region="north")
    fleet.wait(job, "running")
    for words, goal in (
        (("resume", "sleeper"), "running"),
        (("migrate", "sleeper", "--to", "south"), "running"),
        (("suspend", "sleeper"), "suspended"),
    ):
        at_once = ("--no-wait", "--no-copy-ahead")  # else it runs on for a while, and `resume` calls it off
        assert fleet.cli("migrate", "sleeper", "--to", "south", *at_once).returncode == 0
        done = fleet.cli(*words, timeout_s=60)
        assert (done.returncode in (0, 5), "Traceback" in done.stderr) == (True, False), done.stderr
        fleet.wait(job, goal)
        assert fleet.json("show", "sleeper")["region"] in ("south", "")
        if goal == "running":
            fleet.migrate(job, "north")
    fleet.cancel(job)


def test_following_ends_with_whoever_reads(fleet: Fleet) -> None:
    """`midstep logs -f | head -1` ends without a word."""
    job = fleet.run("sh", "-c", "while sleep 0.05; do echo tick; done", name="ticks")
    fleet.until_logs(job, "tick")
    for command in ("logs -f ticks", "logs -f --rank 0 ticks", "logs -f --json ticks"):
        line = f"{sys.executable} -m midstep.cli {command} | head -1"
        env = fleet.environment
        done = subprocess.run(
            ["sh", "-c", line], env=env, capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout
        assert done.stderr == ""
    fleet.cancel(job)


def cmdline(pid: int) -> str:
    """Empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
