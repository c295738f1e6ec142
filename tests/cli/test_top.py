"""`midstep top` and the figures of `show`, against a controller that is only its answers."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from midstep.cli.show_metrics import facts, print_metrics
from midstep.cli.top import device_rows, efficiency, job_rows
from midstep.client.types import (
    DeviceView,
    FractionView,
    MemoryView,
    MetricsView,
    NodeView,
    SharesView,
    SizeView,
)

SHARES = SharesView(0.5, 0.2, 0.3, 0.1)
MEMORY = MemoryView(4_000_000, 8_000_000, 4_000_000, 100_000_000, 12_000_000, 0, 250_000_000)
SIZES = (SizeView(1, 5.0, 1.0, 30.0), SizeView(2, 8.0, 0.8, 60.0))
JOB = MetricsView(
    "j-1", "lm", "running", 2, 4, 1.0, 120, "optimizer", 8.0, SHARES, 9_000_000, 1_000_000.0,
    60.0, 20.0, 40.0, 10.0, MEMORY, SIZES, received=FractionView(0.75, 0.9),
)  # fmt: skip
NODE = NodeView("n1", "north", "10.0.0.1", True, 0.0, True, (DeviceView(0, "cpu", (0,), ("j-1",)),))


def test_a_job_is_a_row() -> None:
    row = ("lm", "running", "2/4", "120", "8", "50%", "20%", "30%", "1.0 MB/s", "250.0 MB", "80%", "75%")
    assert job_rows([JOB]) == [row]
    assert job_rows([MetricsView("j-2", state="resizing", devices=1, world_size=1)]) == [
        ("j-2", "resizing", "1/1", *([""] * 9))
    ]


def test_efficiency_is_shown_when_there_is_something_to_compare() -> None:
    assert efficiency(JOB) == "80%"
    assert efficiency(MetricsView("j", devices=1, sizes=SIZES[:1])) == ""
    assert efficiency(MetricsView("j", devices=3, sizes=SIZES)) == ""


def test_a_device_names_its_jobs() -> None:
    assert device_rows([NODE], [JOB]) == [("n1", "north", "cpu:0", "", "lm")]
    assert device_rows([NODE], [])[0][-1] == "j-1"


def test_the_section_of_show(capsys: pytest.CaptureFixture[str]) -> None:
    print_metrics(JOB)
    said = capsys.readouterr().out
    assert "  steps     120, 8 a second\n" in said
    assert "50% computing, 20% in collectives, 30% waiting (10% for a turn on the device)" in said
    assert "4.0 MB parameters, 8.0 MB optimizer, 12.0 MB of it shared on the device" in said
    assert [line.split() for line in said.splitlines()[-2:]] == [
        ["1", "5", "100%", "30.0", "s"],
        ["2", "8", "80%", "60.0", "s"],
    ]
    print_metrics(MetricsView("j-2"))
    assert capsys.readouterr().out == ""


def test_where_steps_come_from_is_said() -> None:
    beats = MetricsView("j", at_s=1.0, steps=9, counted="collectives")
    assert dict(facts(beats))["steps"] == "9 by the rhythm of its collectives"
    assert dict(facts(MetricsView("j", at_s=1.0)))["steps"] == "none seen"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose controller answers with the job and the node above."""
    from pydantic_core import to_json

    answers = {"/v1/metrics": to_json([JOB]), "/v1/nodes": to_json([NODE])}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers[self.path]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = {"url": f"http://127.0.0.1:{server.server_address[1]}", "token": "t", "fleet": "test"}
    (tmp_path / "client.json").write_text(json.dumps(address))
    yield tmp_path
    server.shutdown()
    server.server_close()


def command(state: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = {
        **os.environ,
        "MIDSTEP_STATE": str(state),
        "TERM": "xterm",
        "COLUMNS": "160",
        "LINES": "40",
    }
    return [sys.executable, "-m", "midstep.cli", "top", *words], environment


def test_without_a_terminal_it_prints_once(state: Path) -> None:
    argv, environment = command(state)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
    heads, job = (line.split() for line in done.stdout.splitlines()[:2])
    assert heads[:5] == ["JOB", "STATE", "DEVICES", "STEPS", "STEPS/S"]
    assert job[:5] == ["lm", "running", "2/4", "120", "8"]
    assert done.stdout.splitlines()[-1].split() == ["n1", "north", "cpu:0", "-", "lm"]
    argv, environment = command(state, "--json")
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
    said = json.loads(done.stdout)
    assert said["jobs"][0]["sizes"][1]["efficiency"] == 0.8 and said["nodes"][0]["name"] == "n1"


def test_on_a_terminal_it_goes_on_until_it_is_interrupted(state: Path) -> None:
    argv, environment = command(state, "--interval", "0.2")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        shown = read_until(ours, lambda text: text.count("Ctrl-C ends") >= 3)
        assert "lm" in shown and "80%" in shown
        process.send_signal(signal.SIGINT)
        rest = read_until(ours, lambda _: process.poll() is not None)
        assert process.wait(30) == 0
        assert "Traceback" not in shown + rest
        assert "\x1b[?1049l" in rest  # the screen of before is back
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(fd: int, done: Any) -> str:
    """What comes until ``done``; as much as there is when the other side has closed."""
    text, until_s = "", time.monotonic() + 60
    while not done(text):
        assert time.monotonic() < until_s, text
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            text += os.read(fd, 1 << 16).decode(errors="replace")
        except OSError:  # closed
            return text
    while select.select([fd], [], [], 0.1)[0]:
        try:
            piece = os.read(fd, 1 << 16)
        except OSError:
            break
        text += piece.decode(errors="replace")
        if not piece:
            break
    return text


@pytest.mark.parametrize("interval", ["0", "-1", "soon"])
def test_an_interval_that_is_none(state: Path, interval: str) -> None:
    argv, environment = command(state, f"--interval={interval}")
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "interval" in done.stderr and done.stdout == ""
