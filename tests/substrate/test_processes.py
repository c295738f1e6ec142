"""Processes known by number, start and boot: a process file never names somebody else's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from midstep.substrate.local.processes import (
    identify,
    kill,
    load,
    save,
    send,
    spawn,
    stop,
    wait_for,
    with_argument,
)

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_spawned_process_has_its_file_before_it_runs(tmp_path: Path) -> None:
    script = f"import json; print(json.load(open({str(tmp_path / 'p.pid')!r}))['pid'])"
    process = spawn([sys.executable, "-c", script], tmp_path / "p.pid", log=None)
    out, _ = process.communicate(timeout=20)
    assert int(out) == process.pid


def test_a_process_file_of_another_life_names_nobody(tmp_path: Path) -> None:
    own = identify(os.getpid())
    assert own is not None
    save(own, tmp_path / "p.pid")
    assert load(tmp_path / "p.pid") == own
    for change in ({"start": own.start - 1}, {"boot": "another"}, {"pid": 2**22 + 1}):
        content = {"pid": own.pid, "start": own.start, "boot": own.boot, **change}
        (tmp_path / "p.pid").write_text(json.dumps(content))
        assert load(tmp_path / "p.pid") is None


def test_damaged_or_missing_files_name_nobody(tmp_path: Path) -> None:
    assert load(tmp_path / "missing.pid") is None
    (tmp_path / "p.pid").write_text('{"pid": 1')
    assert load(tmp_path / "p.pid") is None


def test_a_signal_goes_only_to_the_same_process(tmp_path: Path) -> None:
    process = subprocess.Popen(SLEEPER)
    try:
        identity = identify(process.pid)
        assert identity is not None
        send(type(identity)(identity.pid, identity.start + 1, identity.boot), signal.SIGKILL)
        assert process.poll() is None
        kill([identity])
        assert process.wait(10) == -signal.SIGKILL
        assert not identity.alive
    finally:
        process.kill()


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = spawn([sys.executable, "-c", deaf], tmp_path / "p.pid", log=None)
    assert process.stdout is not None
    process.stdout.readline()
    identity = load(tmp_path / "p.pid")
    assert identity is not None
    stop([identity], grace_s=0.1)
    assert process.wait(10) == -signal.SIGKILL


def test_a_process_is_found_by_an_argument(tmp_path: Path) -> None:
    process = subprocess.Popen([*SLEEPER, str(tmp_path)])
    try:
        # Popen returns as soon as the descriptors close in exec, a moment before the arguments can be read
        assert wait_for(lambda: [i.pid for i in with_argument(str(tmp_path))] == [process.pid], 10)
        assert with_argument(str(tmp_path / "no")) == []
    finally:
        process.kill()
        process.wait()
