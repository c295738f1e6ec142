"""Ranks that share a device keep parameters and optimizer state once, make each step once, and have the bits
of a run that does not.

Every scenario is a function of ``scripts/spliced.py``; many run in one job, because a rank takes seconds to
start.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.harness import Job, run_plain, script

pytest.importorskip("torch")
stepper = importlib.import_module("midstep.runtime.splice.stepper")
pytestmark = pytest.mark.timeout(600)

SUITS = (
    *("plain_sgd", "momentum", "adam_", "adam_foreach", "adam_fused", "adamw", "adamw_fused", "adafactor"),
    *("others", "tied", "groups", "clipped", "hooks", "two_optimizers", "saved", "anomaly", "made_anew"),
    *("resized_while_waiting", "many_small", "held_state"),
)
WRITES = (
    *("by_hand", "by_hand_every_step", "by_data", "by_numpy_on_one_rank", "by_memmove", "small_by_hand"),
    *("edge_by_hand", "state_by_hand", "reloaded", "group_added", "storage_resized", "forked", "threads"),
    "many_small_by_hand",
)
DIFFERS = (
    *("different_from_the_start", "different_gradients", "gradient_by_hand", "permuted_gradients"),
    *("different_learning_rate", "skipped_by_one", "skipped_by_all", "late_gradient", "users_own", "closure"),
    *("failing_step", "epochs", "small_gradient_by_hand"),
)


async def spliced(folder: Path, size: int, *args: Any, name: str = "spliced.py") -> list[Any]:
    folder.mkdir(exist_ok=True)
    async with Job(folder, [list(range(size))]) as job:
        return await job.run(script(name), *args, timeout_s=250)


async def both(folder: Path, names: tuple[str, ...]) -> dict[str, list[dict[str, int]]]:
    """Run scenarios with and without Midstep, compare, and return what splicing did in each rank."""
    (folder / "plain").mkdir()
    plain = await run_plain(folder / "plain", 2, script("spliced.py"), *names, timeout_s=250)
    ours = await spliced(folder / "ours", 2, *names)
    for name in names:
        assert [rank["result"][name] for rank in ours] == [rank["result"][name] for rank in plain], name
    assert ours[0]["folder"] and not os.path.exists(ours[0]["folder"])
    return {name: [rank["said"][name] for rank in ours] for name in names}


def test_a_pause_between_two_steps_is_not_the_usual_time() -> None:
    """How long others are waited for is a multiple of it."""
    intervals = stepper.Intervals()
    found: list[float] = []
    for entered_s in (100.0, 101.0, 102.5, 122.0, 123.0, 124.0):
        intervals.enter(entered_s)
        found.append(intervals.usual_s)
    assert found == [0.0, 0.0, 1.0, 1.5, 1.0, 1.0]
    intervals.forget()
    intervals.enter(200.0)
    assert intervals.usual_s == 0.0


def check_counts(said: list[dict[str, int]]) -> None:
    """What one rank made for all, the others followed."""
    executed = sum(rank["executed_steps"] for rank in said)
    assert all(rank["executed_steps"] + rank["followed_steps"] == executed for rank in said)


async def test_what_suits_it_is_stepped_once_and_has_the_same_bits(tmp_path: Path) -> None:
    """torch's optimizers, parameter groups, hooks, schedulers, clipping, checkpoints, several optimizers."""
    for name, said in (await both(tmp_path, SUITS)).items():
        check_counts(said)
        assert said[0]["formed"] and said[0]["own_steps"] <= 16, name
        assert said[0]["executed_steps"] + said[0]["followed_steps"] >= 10, name


@pytest.mark.soak
async def test_any_write_outside_of_a_step_ends_sharing_and_keeps_the_bits(tmp_path: Path) -> None:
    """By hand, .data, numpy, C, into states; weights reloaded, storages resized; forks from any thread."""
    for name, said in (await both(tmp_path, WRITES)).items():
        check_counts(said)
        assert said[0]["formed"] and said[0]["own_steps"] > 2, name


@pytest.mark.soak
async def test_ranks_that_differ_step_for_themselves(tmp_path: Path) -> None:
    """In parameters, gradients, settings, steps made; a class of their own; other epochs; a failing step."""
    said = await both(tmp_path, DIFFERS)
    for each in said.values():
        check_counts(each)
    for name in ("different_from_the_start", "different_gradients", "users_own"):
        assert not said[name][0]["executed_steps"] and not said[name][0]["followed_steps"], name


@pytest.mark.soak
async def test_a_device_holds_parameters_and_state_once(tmp_path: Path) -> None:
    """Three replicas' memory, each page divided by those who map it, is less by what two share."""
    alone = await spliced(tmp_path / "alone", 3, 8, 14, name="spliced_memory.py")
    shared = await spliced(tmp_path / "shared", 3, 8, 14, "shared", name="spliced_memory.py")
    assert [rank["loss"] for rank in shared] == [rank["loss"] for rank in alone]
    kept = 3 * 8_000_000 * 4
    for rank in shared:
        assert rank["shared"] + rank["copied"] > 0.98 * kept
        assert 2 <= rank["steps"][0] <= 10 and sum(rank["steps"]) == 14  # busy machines need a second attempt
        assert rank["memory"] == alone[0]["memory"]
    saved = sum(rank["pss"] for rank in alone) - sum(rank["pss"] for rank in shared)
    assert saved > 0.6 * sum(rank["shared"] for rank in shared[1:])
