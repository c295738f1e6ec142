"""Results that others published, reproduced: the simulator can be believed."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from midstep.sim.catalogue import PLACEMENTS as BY_NAME
from midstep.sim.catalogue import Ground
from midstep.sim.fleet import Fleet, SimNode
from midstep.sim.fleetfile import read_fleet
from midstep.sim.formats import read_trace
from midstep.sim.trace import MILLI, Job, Trace
from tests.sim.build import DATA, fleet, replay

SC21 = [row for row in csv.DictReader((DATA / "sc21_helios_philly_per_vc.csv").open()) if row["jobs_here"]]
# The published trace has a few odd-sized jobs more in ee9e8c; in one cell ties were in another order.
INCOMPLETE = {("ee9e8c", "fifo"), ("ee9e8c", "sjf"), ("ee9e8c", "srtf"), ("0e4a51", "fifo")}


@cache
def philly() -> Trace:
    return read_trace(DATA / "philly_sc21_4vc.parquet")


def test_all_cells_that_can_be_run_are_there() -> None:
    assert len(SC21) == 12


@pytest.mark.parametrize("row", SC21, ids=lambda row: f"{row['vc']}-{row['policy']}")
def test_sc21_helios(row: dict[str, str]) -> None:
    jobs = [job for job in philly().jobs if job.group == row["vc"]]
    assert len(jobs) == int(row["jobs_here"])
    records = replay(fleet(int(row["nodes"])), jobs, row["policy"]).records
    jct = sum(record.jct_s for record in records) / len(records)
    queue = sum(record.wait_s for record in records) / len(records)
    # The same input, by another implementation: to the second, as printed there.
    assert (int(jct), int(queue)) == (int(row["rerun_avg_jct_s"]), int(row["rerun_avg_queue_s"]))
    published = int(row["published_avg_jct_s"])
    if (row["vc"], row["policy"]) in INCOMPLETE:
        assert abs(jct - published) / published < 0.00355
    else:
        assert (int(jct), int(queue)) == (published, int(row["published_avg_queue_s"]))


FGD = {
    (row["workload"], row["sc_policy"]): row
    for row in csv.DictReader((DATA / "fgd_atc23_gpu_allocation.csv").open())
}
NAMES = {"random": "01-Random", "best-fit": "05-BestFit", "fgd": "06-FGD"}
STEPS = range(10, 140, 10)
DEMAND = 1.3  # of the fleet's devices


@cache
def openb() -> tuple[Fleet, tuple[Job, ...]]:
    """Nodes with devices, as in the published runs; all pods."""
    nodes = tuple(node for node in read_fleet(DATA / "openb2023_nodes.csv").nodes if node.devices)
    return Fleet(nodes), read_trace(DATA / "openb2023.parquet").jobs


def allocated(workload: str, placement: str, seed: int) -> list[float]:
    """Percent of the devices that are given out when so many percent have been asked for. Pods come in random
    order, then copies of random ones; none leaves; one that does not fit is gone."""
    on, jobs = openb()
    if workload == "openb_pod_list_default":
        jobs = tuple(replace(job, device_types=()) for job in jobs)
    chance, capacity = random.Random(seed), on.devices * MILLI
    order = list(jobs)
    chance.shuffle(order)
    wanted = sum(job.devices * job.milli for job in order)
    while wanted + (more := jobs[chance.randrange(len(jobs))]).devices * more.milli <= DEMAND * capacity:
        order.append(more)
        wanted += more.devices * more.milli
    placer = BY_NAME[placement](
        Ground(on, tuple(range(len(on.nodes))), jobs, placement, seed), range(len(on.nodes))
    )
    arrived = given = 0
    found: dict[int, list[float]] = {}
    for job in order:
        arrived += job.devices * job.milli
        if placer.place(job) is not None:
            given += job.devices * job.milli
        found.setdefault(round(100 * arrived / capacity), []).append(100 * given / capacity)
    return [float(np.mean(found[step])) for step in STEPS]


def difference(workload: str, placement: str, seeds: range) -> float:
    row = FGD[workload, NAMES[placement]]
    published = np.array([float(row[f"alloc_pct_at_{step}"]) for step in STEPS])
    ours = np.mean([allocated(workload, placement, seed) for seed in seeds], axis=0)
    return float(np.abs(ours - published).max())


@pytest.mark.parametrize("placement", ["best-fit", "fgd"])
def test_fgd_allocation(placement: str) -> None:
    """One seed is near enough to the mean of ten for these two; `random` varies more (below)."""
    assert difference("openb_pod_list_default", placement, range(42, 43)) < 0.5


@pytest.mark.soak
@pytest.mark.parametrize("placement", list(NAMES))
@pytest.mark.parametrize("workload", ["openb_pod_list_default", "openb_pod_list_gpuspec33"])
def test_fgd_allocation_over_ten_seeds(workload: str, placement: str) -> None:
    assert difference(workload, placement, range(42, 52)) < 0.5


def test_the_placements_differ() -> None:
    """The test above would not pass for whatever placement: at the end they are far apart."""
    ends = {
        name: float(FGD["openb_pod_list_default", label]["alloc_pct_at_130"]) for name, label in NAMES.items()
    }
    assert ends["fgd"] - ends["best-fit"] > 2 and ends["best-fit"] - ends["random"] > 5


def test_philly_machines_are_read() -> None:
    assert isinstance(openb()[0].nodes[0], SimNode)
    assert openb()[0].devices == 6212
