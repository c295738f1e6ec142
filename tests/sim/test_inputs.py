"""Traces and fleets: what is read, and what is said of those that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from midstep.model.tiers import Tier
from midstep.sim.errors import FleetError, TraceError
from midstep.sim.failures import Failures, Spot
from midstep.sim.fleet import offered_load
from midstep.sim.fleetfile import read_fleet
from midstep.sim.formats import read_trace
from midstep.sim.tables import write_parquet
from midstep.sim.trace import between, under_load, with_estimates, with_tiers
from tests.sim.build import DATA, fleet, job, trace

HEAD = "job_id,submit_s,duration_s,gpus"


def written(folder: Path, *lines: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def complaint(path: Path) -> str:
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_trace_of_ours(tmp_path: Path) -> None:
    lines = [f"{HEAD},gpu_type,group,tier,estimate_s", "b,7,60,0.25,A10|T4,vc,premium,90", "a,5,0,16,,,,"]
    jobs = read_trace(written(tmp_path, *lines)).jobs
    assert [(j.index, j.job_id, j.submit_s) for j in jobs] == [(0, "a", 5), (1, "b", 7)]
    assert (jobs[0].devices, jobs[0].milli, jobs[0].tier, jobs[0].group) == (16, 1000, Tier.STANDARD, "")
    assert (jobs[1].size, jobs[1].device_types, jobs[1].tier) == (0.25, ("A10", "T4"), Tier.PREMIUM)
    assert jobs[1].estimate_s == 90


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(path, {"job_id": ["a"], "submit_s": [1], "duration_s": [2], "gpus": [0.5], "group": [None]})
    as_csv = written(tmp_path, f"{HEAD},group", "a,1,2,0.5,")
    assert read_trace(path).jobs == read_trace(as_csv).jobs


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,-1,5,1", "trace.csv: row 1 (line 2), column submit_s: expected a number of 0 or more, got -1"),
        ("a,1,x,1", "trace.csv: row 1 (line 2), column duration_s: expected a number of 0 or more, got 'x'"),
        ("a,1,,1", "column duration_s: there is no value; expected a number of 0 or more"),
        ("a,1,5,nan", "column gpus: expected a number of 0 or more, got nan"),
        ("a,1,5,1.5", "column gpus: expected whole devices, or less than one, got 1.5"),
        ("a,1,5,1e9", "column gpus: expected at most 1000000, got 1e+09"),
        ("a,1,9e9,1", "column duration_s: expected at most 316224000 s (ten years), got 9000000000"),
        ("a,1.5,5,1", "column submit_s: expected whole seconds, got 1.5"),
        (",1,5,1", "column job_id: there is no value"),
        ("a,1,5", "trace.csv: row 1 has 3 cells; there are 4 columns"),
    ],
)
def test_what_is_wrong_is_said_with_row_and_column(tmp_path: Path, row: str, says: str) -> None:
    assert says in complaint(written(tmp_path, HEAD, row))


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("cpu", "1e20", "column cpu: expected at most 10000000, got 1e+20"),
        ("mem_gib", "-1", "column mem_gib: expected a number of 0 or more, got -1"),
        ("estimate_s", "9e9", "column estimate_s: expected at most 316224000 s (ten years)"),
        ("tier", "gold", "column tier: expected one of premium, standard, basic, got 'gold'"),
        ("spot_ok", "perhaps", "column spot_ok: expected yes or no, got 'perhaps'"),
    ],
)
def test_columns_that_may_be_left_out_are_looked_at_too(
    tmp_path: Path, column: str, cell: str, says: str
) -> None:
    assert says in complaint(written(tmp_path, f"{HEAD},{column}", f"a,1,5,1,{cell}"))


def test_all_of_it_is_said_at_once_up_to_ten(tmp_path: Path) -> None:
    text = complaint(written(tmp_path, HEAD, *(f"j{i},-1,5,1" for i in range(12)), "j0,1,1,1"))
    assert text.count("column submit_s") == 10 and text.endswith("and 3 more")


def test_missing_columns_and_rows(tmp_path: Path) -> None:
    says = "trace.csv: there is no column duration_s; it has job_id, submit_s, gpus"
    assert says in complaint(written(tmp_path, "job_id,submit_s,gpus", "a,1,1"))
    assert "there are no jobs in it" in complaint(written(tmp_path, HEAD))
    assert "there is no header" in complaint(written(tmp_path, ""))
    assert "not a trace that is known here: it has the columns a, b" in complaint(
        written(tmp_path, "a,b", "1,2")
    )
    assert "No such file" in complaint(tmp_path / "none.csv")
    assert "not Parquet" in complaint(written(tmp_path, "x", name="t.parquet"))
    doubled = written(tmp_path, HEAD, "a,1,1,1", "a,2,1,1")
    assert "column job_id: 'a' is there already, in row 1" in complaint(doubled)


def test_helios(tmp_path: Path) -> None:
    head = "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue"
    row = "7,u1,vcA,16,64,2,COMPLETED,2020-04-01 00:01:40,2020-04-01 00:02:00,2020-04-01 00:03:00,60,20"
    (found,) = read_trace(written(tmp_path, head, row)).jobs
    assert (found.job_id, found.submit_s, found.duration_s, found.devices, found.group) == (
        "7",
        0,
        60,
        16,
        "vcA",
    )


def test_openb(tmp_path: Path) -> None:
    head = (
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,"
        "creation_time,deletion_time,scheduled_time"
    )
    rows = ["p0,4000,2048,1,460,T4,LS,Running,100,900,110", "p1,4000,2048,1,460,,LS,Pending,200,900,"]
    read = read_trace(written(tmp_path, head, *rows))
    (found,) = read.jobs
    assert (found.submit_s, found.duration_s, found.size, found.cpus, found.mem_gib) == (
        0,
        790,
        0.46,
        4.0,
        2.0,
    )
    assert read.notes == ("1 rows without a run were left out",)


def test_philly(tmp_path: Path) -> None:
    def attempt(begin: str, end: str, *gpus: str) -> dict[str, object]:
        times = {"start_time": f"2017-10-09 07:{begin}:00", "end_time": f"2017-10-09 07:{end}:00"}
        return {**times, "detail": [{"ip": "m1", "gpus": list(gpus)}]}

    common = {"status": "Pass", "vc": "v", "user": "u", "submitted_time": "2017-10-09 07:00:00"}
    jobs: list[dict[str, object]] = [
        {"jobid": "a", **common, "attempts": [attempt("01", "11", "gpu0", "gpu1"), attempt("20", "21")]},
        {"jobid": "b", **common, "attempts": []},
    ]
    read = read_trace(written(tmp_path, json.dumps(jobs), name="cluster_job_log"))
    (found,) = read.jobs
    assert (found.job_id, found.duration_s, found.devices, found.group) == ("a", 1200, 2, "v")
    assert read.notes == ("1 jobs without a run were left out",)
    assert "job 1 is not as in cluster_job_log" in complaint(written(tmp_path, "[{}]", name="x.json"))


def test_tiresias(tmp_path: Path) -> None:
    head = "job_id,num_gpu,submit_time,iterations,model_name,duration,interval"
    (found,) = read_trace(written(tmp_path, head, "3,8,30,100,vgg,147,1")).jobs
    assert (found.job_id, found.devices, found.duration_s) == ("3", 8, 147)


def test_load_compresses_the_submissions() -> None:
    jobs = trace(job("a", 100, 60), job("b", 300, 60))
    assert [j.submit_s for j in under_load(jobs, 2.0).jobs] == [100, 200]
    assert offered_load(fleet(1, 1), under_load(jobs, 2.0)) == pytest.approx(1.2)
    assert [j.job_id for j in between(jobs, 200, None).jobs] == ["b"]


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    many = trace(*(job(f"j{i}", i, 1000) for i in range(500)))
    from_trace = with_tiers(many, 7)
    assert from_trace == many  # it had tiers of its own
    bare = type(many)("t", many.jobs)
    assert with_tiers(bare, 7) == with_tiers(bare, 7) != with_tiers(bare, 8)
    share = sum(j.tier is Tier.BASIC for j in with_tiers(bare, 7).jobs) / 500
    assert 0.4 < share < 0.6
    assert all(1000 <= j.estimate_s <= 5060 for j in with_estimates(many, 7).jobs)


FLEET = """\
regions:
  - name: east
    clusters:
      - name: a
        racks:
          - name: r1
            nodes: [{count: 2, devices: 8, device_type: v100, cpus: 96}]
          - name: r2
            nodes: [{name: big, devices: 16, device_type: h100}]
        groups: {vision: 1, speech: 2}
      - name: b
        nodes: [{count: 11, devices: 4, device_type: t4}]
prices: {v100: 2.5, h100: 8}
failures: {mtbf_hours: 500, shape: 0.8}
"""


def test_a_fleet(tmp_path: Path) -> None:
    read = read_fleet(written(tmp_path, FLEET, name="f.yaml"))
    assert [node.name for node in read.nodes[:4]] == ["a-r1-n1-0", "a-r1-n1-1", "big", "b-n1-00"]
    assert read.nodes[0].rack == "r1" and read.nodes[0].cpus == 96 and read.nodes[0].region == "east"
    assert read.devices == 16 + 16 + 44 and list(read.clusters) == ["a", "b"]
    assert read.groups == {"a": {"vision": 1, "speech": 2}} and read.price("v100") == 2.5
    assert read.failures == Failures(500.0, shape=0.8)


def test_spot_nodes(tmp_path: Path) -> None:
    some = FLEET.replace("devices: 4,", "devices: 4, spot: true,")
    read = read_fleet(written(tmp_path, some, name="f.yaml"))
    assert sum(node.spot for node in read.nodes) == 11 and read.spot_share == 11 / 14
    assert read.failures == Failures(500.0, shape=0.8, spot=Spot())
    stated = some.replace(
        "failures: {mtbf_hours: 500, shape: 0.8}", "spot: {stays_hours: 6, notice_seconds: 30}"
    )
    read = read_fleet(written(tmp_path, stated, name="g.yaml"))
    assert read.failures == Failures(spot=Spot(stays_h=6.0, notice_s=30))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("devices: 16", "devices: -1", "yaml:9:42: devices: expected a whole number of 0 or more, got '-1'"),
        ("count: 2", "count: two", "f.yaml:7:29: count: expected a whole number of 1 or more, got 'two'"),
        ("cpus: 96", "cpu: 96", "f.yaml:7:63: there is no field 'cpu' in nodes: did you mean cpus?"),
        ("device_type: h100", "cpus: 1", "f.yaml:9:21: there is no device_type: expected a name"),
        ("name: b\n", "name: a\n", "f.yaml:11:9: there is a cluster a already"),
        ("regions:", "region:", "f.yaml:1:1: there is no field 'region' in a fleet: did you mean regions?"),
        ("{v100: 2.5,", "{v100: dear,", "f.yaml:13:16: v100: expected a number of 0 or more, got 'dear'"),
        ("{vision: 1,", "{vision: 1.5,", "10:26: vision: expected a whole number of 0 or more, got '1.5'"),
        ("[{count: 11,", "{count: 11,", "f.yaml:12:"),
        ("count: 11", "count: 200000", "expected at most 200000 nodes in all, got more"),
        ("devices: 16", "devices: 999999", "f.yaml:9:42: devices: expected at most 200000, got '999999'"),
        ("cpus: 96", "cpus: .nan", "f.yaml:7:69: cpus: expected a number of 0 or more, got '.nan'"),
        ("mtbf_hours: 500", "mtbf: 500", "there is no field 'mtbf' in failures: expected one of mtbf_hours,"),
        ("mtbf_hours: 500", "mtbf_hours: 0", "f.yaml:14:24: mtbf_hours: expected a number of 0.1 or more"),
        ("mtbf_hours: 500, ", "", "f.yaml:14:11: there are no mtbf_hours: expected the mean hours"),
        ("{mtbf_hours: 500, shape: 0.8}", "often", "f.yaml:14:11: expected failures, with mtbf_hours"),
        ("devices: 16", "spot: maybe, devices: 16", "f.yaml:9:39: spot: expected true or false, got 'maybe'"),
        ("prices:", "spot: {stays_hours: 2}\nprices:", "f.yaml:13:7: there are no spot nodes: expected"),
        ("prices:", "spot: {stay_hours: 2}\nprices:", "f.yaml:13:8: there is no field 'stay_hours' in spot"),
        ("prices:", "spot: {notice_seconds: -1}\nprices:", "13:24: notice_seconds: expected a whole number"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_fleet(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in FLEET
    with pytest.raises(FleetError) as caught:
        read_fleet(written(tmp_path, FLEET.replace(old, new), name="f.yaml"))
    assert says in str(caught.value)


def test_an_empty_fleet_and_none(tmp_path: Path) -> None:
    for text, says in (
        ("", "it is empty: expected regions"),
        ("[]", "f.yaml:1:1: expected a fleet, with regions"),
    ):
        with pytest.raises(FleetError, match=says.replace("[", r"\[")):
            read_fleet(written(tmp_path, text, name="f.yaml"))
    with pytest.raises(FleetError, match="No such file"):
        read_fleet(tmp_path / "none.yaml")


def test_public_lists_of_machines(tmp_path: Path) -> None:
    assert len(read_fleet(DATA / "openb2023_nodes.csv").nodes) == 1523
    philly = written(tmp_path, "machine,gpus,gpu_mem", "m0,2,12GB", "m1,8,24GB", name="m.csv")
    assert [node.devices for node in read_fleet(philly).nodes] == [2, 8]
    with pytest.raises(FleetError, match="not a list of machines that is known here"):
        read_fleet(written(tmp_path, "x,y", "1,2", name="m.csv"))
