"""Plans of embedded fleets: names, addresses, devices."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstep.model.fleet import Device
from midstep.substrate.errors import FleetConflict
from midstep.substrate.local.devices import cpu_devices, gpu_type
from midstep.substrate.local.plan import PLAN, FleetPlan, Shape, make_plan, readdress

SHAPES = st.builds(Shape, st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))
CORES = st.integers(1, 64).map(lambda count: list(range(count)))


def plan_of(shape: Shape, cores: list[int], state: str = "/state") -> FleetPlan:
    groups, shared = cpu_devices(shape.regions * shape.nodes * shape.devices, cores)
    return readdress(make_plan("", Path(state), shape, groups, shared), "10.213.7.0/24", 7474)


@given(SHAPES, CORES)
def test_names_and_addresses_are_unique_and_inside_the_subnet(shape: Shape, cores: list[int]) -> None:
    plan = plan_of(shape, cores)
    assert len({n.name for n in plan.nodes}) == len(plan.nodes) == shape.regions * shape.nodes
    addresses = [plan.host, *(n.address for n in plan.nodes)]
    assert len(set(addresses)) == len(addresses)
    assert all(ipaddress.ip_address(a) in ipaddress.ip_network(plan.subnet) for a in addresses)
    assert all(len(name) <= 15 for name in (plan.bridge, *(n.veth for n in plan.nodes)))  # the kernel's limit
    assert len(plan.regions) == shape.regions


@given(SHAPES, CORES)
def test_devices_have_their_own_cores_unless_said_otherwise(shape: Shape, cores: list[int]) -> None:
    plan = plan_of(shape, cores)
    devices = [d for n in plan.nodes for d in n.devices]
    assert len(devices) == shape.regions * shape.nodes * shape.devices
    assert len({d.device_type for d in devices}) == 1
    used = [core for d in devices for core in d.cpus]
    assert set(used) <= set(cores)
    assert plan.overcommitted == (len(set(used)) < len(used))
    assert plan.overcommitted == (len(devices) > len(cores))
    assert all([d.index for d in n.devices] == list(range(shape.devices)) for n in plan.nodes)


def test_the_last_nodes_of_each_region_may_be_taken_away() -> None:
    groups, shared = cpu_devices(12, [0])
    plan = make_plan("", Path("/s"), Shape(2, 3, 2, spot=1), groups, shared)
    assert [n.name for n in plan.nodes if n.spot] == ["north-3", "south-3"]
    assert PLAN.validate_json(PLAN.dump_json(plan)) == plan


def test_gpus_are_listed_by_every_node_under_their_own_numbers() -> None:
    gpus = (Device(0, "nvidia-h100", (0,)), Device(1, "nvidia-h100", (1,)))
    plan = make_plan("", Path("/s"), Shape(2, 2, 2), gpus, overcommitted=True)
    assert all(n.devices == gpus for n in plan.nodes)


def test_two_state_folders_have_different_links() -> None:
    one, other = plan_of(Shape(), [0], "/a"), plan_of(Shape(), [0], "/b")
    assert one.bridge != other.bridge
    assert one.alias != other.alias


def test_a_plan_survives_its_file() -> None:
    plan = plan_of(Shape(2, 2, 2), [0, 1])
    assert PLAN.validate_json(PLAN.dump_json(plan)) == plan


def test_too_many_nodes_are_refused() -> None:
    with pytest.raises(FleetConflict, match="202 nodes"):
        make_plan("", Path("/s"), Shape(2, 101, 1), (Device(0, "cpu-1c", (0,)),), overcommitted=True)


@pytest.mark.parametrize(
    ("product", "device_type"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("NVIDIA A100-SXM4-40GB", "nvidia-a100-sxm4-40gb"),
        ("NVIDIA H200", "nvidia-h200"),
        ("Tesla T4", "nvidia-tesla-t4"),
        ("NVIDIA GeForce RTX 4090", "nvidia-geforce-rtx-4090"),
    ],
)
def test_gpu_types_name_the_chip_and_its_memory(product: str, device_type: str) -> None:
    assert gpu_type(product) == device_type
