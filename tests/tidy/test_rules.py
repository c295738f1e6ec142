"""The rules catch what they should: each on a small module that breaks it."""

from __future__ import annotations

import ast

import pytest

from tests.tidy.rules import BANS
from tests.tidy.source import Import, Module, calls, functions, imports
from tests.tidy.test_imports import banned_in, complain_about_import


def parse(name: str, text: str) -> Module:
    return Module(name, text, ast.parse(text))


@pytest.mark.parametrize(
    ("name", "text", "blamed"),
    [
        ("policy/order.py", "from midstep.engine import record", "midstep.engine"),
        ("policy/order.py", "from ..engine.record import Record", "midstep.engine.record"),
        ("policy/order.py", "from midstep import control", "midstep.control"),
        ("model/job.py", "import pydantic", "pydantic"),
        ("runtime/group.py", "def f():\n    from midstep.wire import agent", "midstep.wire"),
        ("mailbox/heap.py", "import torch.distributed", "torch.distributed"),
        ("control/region.py", "import midstep.app.supervisor", "midstep.app.supervisor"),
    ],
)
def test_an_import_out_of_line_is_named(name: str, text: str, blamed: str) -> None:
    module = parse(name, text)
    complaints = [complain_about_import(module, item) for item in imports(module)]
    assert [blamed in complaint for complaint in complaints] == [True]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy/order.py", "from midstep.model.job import Job\nimport numpy, collections.abc"),
        ("agent/steps/run.py", "from . import base\nfrom ..drivers import freeze\nimport psutil"),
        ("proxy/tree.py", "from midstep.mailbox.layout import Layout\nimport torch"),
    ],
)
def test_an_import_in_line_is_not(name: str, text: str) -> None:
    module = parse(name, text)
    assert not any(complain_about_import(module, item) for item in imports(module))


@pytest.mark.parametrize(
    "text",
    [
        "import time\nnow = time.time()",
        "import time as t\nwait = t.sleep",
        "from time import monotonic as now\nnow()",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "from datetime import datetime\ndatetime.now()",
        "import random\nrandom.random()",
        "from uuid import uuid4\nuuid4().hex",
        "import os\nos.urandom(8)",
        "import asyncio\nasync def f():\n    await asyncio.sleep(1)",
    ],
)
def test_clocks_and_chance_are_seen_through_any_import(text: str) -> None:
    module = parse("engine/step.py", text)
    assert any(banned_in(module, ban) for ban in BANS), list(calls(module))


def test_a_variable_of_the_same_name_is_not_a_clock() -> None:
    module = parse("engine/step.py", "def f(time):\n    return time.time(), other.random.random()")
    assert not any(banned_in(module, ban) for ban in BANS)


def test_relative_imports_are_resolved() -> None:
    module = parse("agent/steps/run.py", "from .base import Step\nfrom ...wire import agent")
    assert list(imports(module)) == [Import("midstep.agent.steps.base", 1), Import("midstep.wire", 2)]


def test_a_function_is_measured_with_its_body() -> None:
    (found,) = functions(parse("engine/step.py", "def f():\n    a = 1\n    return a\n"))
    assert (found.name, found.lines) == ("f", 3)
