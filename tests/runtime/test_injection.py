"""What the runtime does to a Python that it is injected into: nothing, unless it imports torch.distributed in
a job.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.harness import INJECT, injected


def run(code: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_users_own_sitecustomize_still_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.users_own = 1\n")
    environment = injected(tmp_path, PYTHONPATH=str(tmp_path))
    said = run("import sitecustomize; print(users_own, sitecustomize.__file__)", environment)
    assert said.split()[0] == "1" and str(tmp_path) in said


def test_a_python_without_torch_notices_nothing(tmp_path: Path) -> None:
    code = "import sys; print(*sorted(m for m in sys.modules if 'midstep' in m or m == 'torch'))"
    loaded = run(code, injected(tmp_path)).split()
    assert all(name.startswith("_midstep") for name in loaded) and "_midstep.runtime.takeover" not in loaded
    assert run("print('quiet')", injected(tmp_path)) == "quiet\n"


def test_outside_a_job_nothing_is_installed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(INJECT)}
    environment.pop("MIDSTEP_RUN", None)
    assert run("import sys; print('_midstep' in sys.modules)", environment).strip() == "False"


def test_nothing_of_ours_is_on_the_path_but_the_injection(tmp_path: Path) -> None:
    code = "import sys; print([path for path in sys.path if 'midstep' in path])"
    assert run(code, injected(tmp_path)).strip() == f"[{str(INJECT)!r}]"


def test_an_old_python_is_left_alone() -> None:
    """The injected file must at least compile and end quietly there: it holds no newer syntax than Python
    2.7's.
    """
    source = (INJECT / "sitecustomize.py").read_text()
    assert "f'" not in source and 'f"' not in source and ":=" not in source and "->" not in source


def test_children_are_injected_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, os; os.environ['RANK'] = '7'; "
        "print(subprocess.run([sys.executable, '-c', 'import os, sys; "
        'print("_midstep" in sys.modules, os.environ["MIDSTEP_RANK"])\'], '
        "capture_output=True, text=True).stdout)"
    )
    assert run(code, injected(tmp_path, RANK="3")).split() == ["True", "3"]


def test_torch_is_taken_over_and_says_the_same(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code = (
        "import torch.distributed as d; import inspect; "
        "print(d.TCPStore.__module__, d.is_gloo_available(), d.Backend.default_device_backend_map['cpu'], "
        "list(inspect.signature(d.init_process_group).parameters)[0])"
    )
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ours, theirs = run(code, injected(tmp_path)).split()[-4:], run(code, plain).split()[-4:]
    assert ours[1:] == theirs[1:]
