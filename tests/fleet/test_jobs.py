"""Jobs by the command line, on a real fleet: what is printed, where files go, how it exits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleet.harness import Fleet

COUNT = """
import os, pathlib, sys, time
for i in range(int(sys.argv[1])):
    print(i, flush=True)
    time.sleep(0.05)
pathlib.Path("result.txt").write_text("counted to " + sys.argv[1])
"""
FOR_LONG = "10000"


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    (tmp_path / "count.py").write_text(COUNT)
    return tmp_path


def test_run_and_follow(fleet: Fleet, workdir: Path) -> None:
    done = fleet.cli("run", "--follow", "count.py", "5", cwd=workdir)
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n3\n4\n"), done.stderr
    assert (workdir / "result.txt").read_text() == "counted to 5"
    assert "changed: result.txt" in done.stderr


def test_follow_exits_as_the_job_does(fleet: Fleet, workdir: Path) -> None:
    script = "import sys; print('this went wrong', file=sys.stderr); sys.exit(42)"
    done = fleet.cli("run", "-f", "--no-workdir", "--name", "bad", "--", "python", "-c", script)
    assert (done.returncode, done.stdout) == (42, "this went wrong\n")
    shown = fleet.cli("show", "bad")
    assert shown.returncode == 0
    assert "state      failed" in shown.stdout
    assert "this went wrong" in shown.stdout
    assert "exit code  42" in shown.stdout


def test_a_command_that_does_not_exist(fleet: Fleet) -> None:
    done = fleet.cli("run", "-f", "--no-workdir", "--", "no-such-program")
    assert done.returncode == 127 or done.returncode == 1
    assert "no-such-program" in done.stderr + done.stdout


def test_run_prints_the_id_and_pull_fetches_the_files(fleet: Fleet, workdir: Path, tmp_path: Path) -> None:
    done = fleet.cli("run", "--name", "counter", "--", "python", "count.py", "2", cwd=workdir)
    job = fleet.wait(done.stdout.strip())
    assert (job.name, job.state) == ("counter", "completed")
    pulled = fleet.cli("pull", "counter", str(tmp_path / "there"))
    assert pulled.returncode == 0, pulled.stderr
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["count.py", "result.txt"]
    (tmp_path / "there" / "result.txt").write_text("mine")
    assert fleet.cli("pull", "counter", str(tmp_path / "there")).returncode == 5
    assert (tmp_path / "there" / "result.txt").read_text() == "mine"
    assert fleet.cli("pull", "counter", str(tmp_path / "there"), "--force").returncode == 0


def test_submit_a_file(fleet: Fleet, workdir: Path) -> None:
    (workdir / "job.yaml").write_text(
        'command: [python, -c, \'import os; print(os.environ["GREETING"], os.path.exists("count.py"))\']\n'
        "name: from-file\nworkdir: .\nenv: {GREETING: hello}\nregion: south\n"
    )
    done = fleet.cli("submit", "--follow", str(workdir / "job.yaml"))
    assert (done.returncode, done.stdout) == (0, "hello True\n"), done.stderr
    assert fleet.json("show", "from-file")["state"] == "completed"


def test_suspend_resume_migrate_cancel(fleet: Fleet, workdir: Path) -> None:
    submitted = fleet.json(
        "run", "--name", "mover", "--region", "north", "--workdir", str(workdir), "count.py", FOR_LONG
    )
    job = submitted["job_id"]
    fleet.until_logs(job, "3\n")
    suspended = fleet.cli("suspend", "mover")
    assert suspended.returncode == 0, suspended.stderr
    assert "mover is suspended" in suspended.stderr
    assert "dump" in suspended.stderr  # each phase as it happened
    assert fleet.json("show", "mover")["snapshot_bytes"] > 0
    assert fleet.cli("suspend", "mover").returncode == 5
    assert fleet.cli("resume", "mover").returncode == 0
    migrated = fleet.cli("migrate", "mover", "--to", "south", "--no-copy-ahead")
    assert migrated.returncode == 0, migrated.stderr
    view = fleet.json("show", "mover")
    assert (view["state"], view["region"]) == ("running", "south")
    assert [m["kind"] for m in view["moves"] if m["kind"] != "reconnect"] == ["suspend", "resume", "migrate"]
    assert all(m["ok"] and m["duration_s"] > 0 and m["steps"] for m in view["moves"])
    assert "restore" in fleet.cli("show", "mover").stdout
    assert fleet.cli("cancel", "mover").returncode == 0
    lines = fleet.logs(job).split()
    assert lines == [str(i) for i in range(len(lines))]  # each number once, in order


def test_several_ranks(fleet: Fleet) -> None:
    script = (
        "import os; print('I am', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'], os.uname().nodename)"
    )
    done = fleet.cli(
        "run", "-f", "--no-workdir", "--devices", "3", "--name", "three", "--", "python", "-c", script
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(line.split(" | ")[1].rsplit(" ", 1)[0] for line in done.stdout.splitlines())
    assert lines == ["I am 0 of 3", "I am 1 of 3", "I am 2 of 3"]
    one = fleet.cli("logs", "three", "--rank", "1")
    assert one.stdout.startswith("I am 1 of 3")
    rows = [json.loads(line) for line in fleet.cli("logs", "three", "--json").stdout.splitlines()]
    assert sorted(row["rank"] for row in rows) == [0, 1, 2]
    assert fleet.cli("logs", "three", "--rank", "3").returncode == 2


def test_what_is_refused(fleet: Fleet) -> None:
    run = ("run", "--no-workdir")
    for words, code in (
        ((*run, "--device-type", "quantum", "--", "true"), 6),
        ((*run, "--devices", "999", "--", "true"), 6),
        ((*run, "--region", "atlantis", "--", "true"), 6),
        (("show", "no-such-job"), 4),
        (("suspend", "no-such-job"), 4),
        (("logs", "no-such-job"), 4),
        (("pull", "no-such-job"), 4),
    ):
        done = fleet.cli(*words)
        assert done.returncode == code, (words, done.stderr)
        assert done.stderr.startswith("midstep: ")
        assert "Traceback" not in done.stderr


def test_waiting_has_an_end(fleet: Fleet, workdir: Path) -> None:
    fleet.cli("run", "--name", "waiter", "--workdir", str(workdir), "count.py", FOR_LONG)
    fleet.until_logs("waiter", "1\n")
    assert fleet.cli("suspend", "waiter", "--no-wait").returncode == 0
    fleet.wait("waiter", "suspended")
    timed_out = fleet.cli("suspend", "waiter", "--timeout", "0")
    assert timed_out.returncode in (5, 7)
    assert fleet.cli("cancel", "waiter").returncode == 0
    refused = fleet.cli("resume", "waiter")
    assert refused.returncode == 5
    assert "cancelled" in refused.stderr


def test_lists(fleet: Fleet) -> None:
    job = fleet.run("true", name="listed")
    fleet.wait(job)
    jobs = fleet.json("ps", "--all")
    assert job.job_id in [j["job_id"] for j in jobs]
    assert job.job_id not in [j["job_id"] for j in fleet.json("ps")]
    table = fleet.cli("ps", "-a").stdout.splitlines()
    heads = "JOB NAME STATE TIER PRIORITY PROJECT DEVICES RECEIVED NODES AGE NOTE"
    assert table[0].split() == heads.split()
    events = [
        json.loads(line) for line in fleet.cli("events", "--job", "listed", "--json").stdout.splitlines()
    ]
    assert {e["job_id"] for e in events} == {job.job_id}
    assert [e["number"] for e in events] == sorted(e["number"] for e in events)
    node = fleet.json("nodes")[0]
    assert {"name", "region", "address", "connected", "devices", "freezes_in_place"} <= node.keys()


def test_an_interrupt_leaves_the_job_running(fleet: Fleet, workdir: Path) -> None:
    argv = [sys.executable, "-m", "midstep.cli", "run", "-f", "--name", "left", "count.py", FOR_LONG]
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, env=fleet.environment, cwd=workdir, text=True, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "left goes on" in said
    assert fleet.json("show", "left")["state"] == "running"
    fleet.cancel("left")


def test_completion_offers_jobs_and_places(fleet: Fleet) -> None:
    job = fleet.run("true", name="complete-me")
    fleet.wait(job)
    for words, offered in (("midstep show comp", "complete-me"), ("midstep migrate x --to so", "south")):
        env = {"_MIDSTEP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        argv, env = [sys.executable, "-m", "midstep.cli"], {**fleet.environment, **env}
        done = subprocess.run(argv, env=env, text=True, capture_output=True, timeout=30, check=False)
        assert offered in done.stdout.split(), done
