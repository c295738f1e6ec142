"""torch's own conformance suite under Midstep: what gloo passes on this torch, our process group passes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.run import BASELINE, run_under_midstep

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="torch's own test suite needs it")

HERE = Path(__file__).parent
SKIPS: dict[str, str] = json.loads(
    (HERE / "skips.json").read_text()
)  # test -> why it is not run under Midstep
BASE = json.loads(BASELINE.read_text())

QUICK = [  # each under "test_"
    "DistributedDataParallelCPU",
    "DistributedDataParallelCPU_grad_is_view",
    "accumulate_gradients_no_sync_allreduce_hook",
    "all_gather",
    "all_gather_coalesced_simple",
    "all_gather_coalesced_with_empty",
    "all_gather_complex",
    "all_gather_object_default_pg",
    "all_gather_object_subgroup",
    "all_reduce_coalesced_sum",
    "all_reduce_complex_unsupported_ops",
    "all_reduce_full_group_max",
    "all_reduce_product",
    "all_reduce_sum",
    "all_reduce_sum_async",
    "all_reduce_sum_complex",
    "barrier_full_group",
    "barrier_timeout_full_group",
    "batch_isend_irecv_gloo_tags",
    "broadcast",
    "ddp_create_graph",
    "ddp_logging_data_cpu",
    "destroy_group",
    "gather",
    "gather_checks",
    "gather_object",
    "get_backend",
    "get_future",
    "get_rank",
    "isend",
    "isend_autograd_profiler",
    "monitored_barrier_gloo",
    "monitored_barrier_gloo_rank_0_timeout",
    "new_subgroups_with_group_param",
    "reduce_product",
    "reduce_sum",
    "scatter",
    "scatter_checks",
    "scatter_object_list",
    "send_recv",
    "send_recv_any_source",
    "send_recv_with_tag",
    "sparse_all_reduce_sum",
    "static_graph_api_cpu",
]

# Under the name "mpi" torch's suite also runs what it does not expect of gloo.
MPI_ONLY = [
    "all_to_all",
    "all_to_all_complex",
    "all_to_all_full_group",
    "all_to_all_group",
    "all_to_all_single_equal_split",
    "all_to_all_single_equal_split_complex",
    "all_to_all_single_equal_split_full_group",
    "all_to_all_single_equal_split_group",
    "all_to_all_single_unequal_split",
    "all_to_all_single_unequal_split_complex",
    "all_to_all_single_unequal_split_full_group",
    "all_to_all_single_unequal_split_group",
]


def passing(names: list[str]) -> list[str]:
    """Those of the tests that gloo passes on this torch and that have no reason to be skipped."""
    return [
        f"test_{name}" for name in names if f"test_{name}" in BASE["passed"] and f"test_{name}" not in SKIPS
    ]


async def check(folder: Path, tests: list[str], timeout_s: float, **environment: str) -> None:
    found = await run_under_midstep(folder, tests, timeout_s, **environment)
    wrong = {name: found.get(name, {}).get("reason", "was not run") for name in tests}
    wrong = {name: reason for name, reason in wrong.items() if found.get(name, {}).get("outcome") != "pass"}
    assert not wrong, "\n".join(f"{name}: {reason}" for name, reason in wrong.items())


def test_the_baseline_is_of_this_torch() -> None:
    """Another torch may pass other tests: then ``python -m tests.conformance.run --record``."""
    assert torch.__version__.split("+")[0] == BASE["torch"].split("+")[0]
    assert len(BASE["passed"]) > 80 and all(SKIPS.values())
    assert SKIPS.keys() <= set(BASE["passed"])
    assert len(passing(QUICK)) > 35, sorted(set(QUICK) - {name[5:] for name in passing(QUICK)})


@pytest.mark.timeout(300)
async def test_a_part_of_the_suite(tmp_path: Path) -> None:
    await check(tmp_path, passing(QUICK), timeout_s=280)


@pytest.mark.soak
@pytest.mark.timeout(120)
async def test_what_torch_expects_of_mpi_only(tmp_path: Path) -> None:
    await check(tmp_path, [f"test_{name}" for name in MPI_ONLY], timeout_s=110, BACKEND="mpi")


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_the_whole_suite(tmp_path: Path) -> None:
    """All of it in one go, also what torch skips: a skip must be torch's own, as on gloo."""
    found = await run_under_midstep(tmp_path, [], 1700)
    wrong = {
        name: found.get(name, {}).get("reason", "was not run")
        for name in BASE["passed"]
        if name not in SKIPS and found.get(name, {}).get("outcome") != "pass"
    }
    assert not wrong, "\n".join(f"{name}: {reason}" for name, reason in wrong.items())
    failed = {name: row["reason"] for name, row in found.items() if row["outcome"] == "fail"}
    assert failed.keys() <= BASE["failed"].keys(), failed
