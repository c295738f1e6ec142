"""FLEET.yaml. What is wrong is said with line and column, and what was expected; all of it at once."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from midstep.sim.errors import FleetError
from midstep.sim.failures import Failures, Spot
from midstep.sim.fleet import Fleet, SimNode
from midstep.sim.yamlfile import Reader, amount, compose, count, positive, text, yes_or_no

HINT = "docs/replay-a-trace.md describes fleets"
MOST_NODES = 200_000
_NODE = ("name", "count", "devices", "device_type", "cpus", "mem_gib", "spot")


class _Fleet(Reader):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.nodes: list[SimNode] = []
        self.groups: dict[str, dict[str, int]] = {}
        self.prices: dict[str, float] = {}
        self.clusters: set[str] = set()
        self.failures: Failures | None = None
        self.spot: Spot | None = None  # as the file says, whether or not there are such nodes


def read_fleet(path: Path) -> Fleet:
    """FLEET.yaml, or a public list of machines (CSV). FleetError: everything that is wrong with it."""
    if path.suffix == ".csv":
        return _machines(path)
    reader = _Fleet(path)
    root = compose(path, FleetError, HINT, "regions")
    _root(reader, root)
    if reader.problems:
        raise FleetError("\n  ".join(reader.problems), HINT)
    failures = reader.failures
    if any(node.spot for node in reader.nodes):
        failures = replace(failures or Failures(), spot=reader.spot or Spot())
    return Fleet(tuple(reader.nodes), reader.groups, reader.prices, failures)


def _root(reader: _Fleet, root: Any) -> None:
    fields = reader.fields(root, ("regions", "prices", "failures", "spot"), "a fleet")
    for region in reader.items(root, fields, "regions"):
        inner = reader.fields(region, ("name", "clusters"), "a region")
        name = _name(reader, region, inner)
        for cluster in reader.items(region, inner, "clusters"):
            _cluster(reader, name, cluster)
    for kind, node in reader.fields(fields["prices"], (), "prices").items() if "prices" in fields else ():
        reader.prices[kind] = reader.value({kind: node}, kind, amount(), 0.0)
    if "failures" in fields:
        reader.failures = _failures(reader, fields["failures"])
    if "spot" in fields:
        reader.spot = _spot(reader, fields["spot"])
        if not any(node.spot for node in reader.nodes):
            reader.say(fields["spot"], "there are no spot nodes: expected nodes with `spot: true`")


def _failures(reader: _Fleet, node: Any) -> Failures | None:
    known = ("mtbf_hours", "repair_hours", "shape", "repair_sigma", "saves_minutes")
    fields = reader.fields(node, known, "failures")
    if not fields:
        return None
    if "mtbf_hours" not in fields:
        reader.say(node, "there are no mtbf_hours: expected the mean hours between a node's failures")
    like = Failures(1.0)
    return Failures(
        mtbf_h=reader.value(fields, "mtbf_hours", amount(1e7, 0.1), like.mtbf_h),
        repair_h=reader.value(fields, "repair_hours", amount(1e5, 0.001), like.repair_h),
        shape=reader.value(fields, "shape", amount(5.0, 0.2), like.shape),
        repair_sigma=reader.value(fields, "repair_sigma", amount(5.0), like.repair_sigma),
        save_s=60 * reader.value(fields, "saves_minutes", amount(1e5), like.save_s / 60),
    )


def _spot(reader: _Fleet, node: Any) -> Spot:
    known = ("stays_hours", "away_hours", "notice_seconds", "shape", "away_sigma")
    fields, like = reader.fields(node, known, "spot"), Spot()
    return Spot(
        stays_h=reader.value(fields, "stays_hours", amount(1e7, 0.1), like.stays_h),
        away_h=reader.value(fields, "away_hours", amount(1e5, 0.001), like.away_h),
        notice_s=reader.value(fields, "notice_seconds", count(86400), like.notice_s),
        shape=reader.value(fields, "shape", amount(5.0, 0.2), like.shape),
        away_sigma=reader.value(fields, "away_sigma", amount(5.0), like.away_sigma),
    )


def _cluster(reader: _Fleet, region: str, cluster: Any) -> None:
    fields = reader.fields(cluster, ("name", "racks", "nodes", "groups"), "a cluster")
    name = _name(reader, cluster, fields)
    if name and name in reader.clusters:
        reader.say(cluster, f"there is a cluster {name} already: expected a name of its own")
    reader.clusters.add(name)
    if "racks" in fields and "nodes" in fields:
        reader.say(fields["nodes"], "expected either racks or nodes, not both")
    elif "racks" in fields:
        for rack in reader.items(cluster, fields, "racks"):
            inner = reader.fields(rack, ("name", "nodes"), "a rack")
            _nodes(reader, region, name, _name(reader, rack, inner), rack, inner)
    else:
        _nodes(reader, region, name, "", cluster, fields)
    if "groups" in fields:
        groups = reader.fields(fields["groups"], (), "groups (NAME: nodes)")
        reader.groups[name] = {group: reader.value(groups, group, count(MOST_NODES), 0) for group in groups}


def _nodes(
    reader: _Fleet, region: str, cluster: str, rack: str, parent: Any, fields: Mapping[str, Any]
) -> None:
    for kind, node in enumerate(reader.items(parent, fields, "nodes")):
        inner = reader.fields(node, _NODE, "nodes")
        for needed in ("devices", "device_type"):
            if inner and needed not in inner:
                reader.say(
                    node, f"there is no {needed}: expected {'how many' if needed == 'devices' else 'a name'}"
                )
        many = reader.value(inner, "count", positive, 1)
        if len(reader.nodes) + many > MOST_NODES:
            reader.say(node, f"expected at most {MOST_NODES} nodes in all, got more")
            many = 0
        stem = reader.value(inner, "name", text, f"{cluster}{'-' + rack if rack else ''}-n{kind + 1}")
        like = SimNode(
            name=stem,
            cluster=cluster,
            device_type=reader.value(inner, "device_type", text, ""),
            devices=reader.value(inner, "devices", count(MOST_NODES), 0),
            region=region,
            rack=rack,
            cpus=reader.value(inner, "cpus", amount(), 0.0),
            mem_gib=reader.value(inner, "mem_gib", amount(), 0.0),
            spot=reader.value(inner, "spot", yes_or_no, False),
        )
        width = len(str(many - 1))
        reader.nodes += [
            replace(like, name=f"{stem}-{number:0{width}}") if many > 1 else like for number in range(many)
        ]


def _name(reader: _Fleet, node: Any, fields: Mapping[str, Any]) -> str:
    if fields and "name" not in fields:
        reader.say(node, "there is no name: expected one")
    return reader.value(fields, "name", text, "")


def _machines(path: Path) -> Fleet:
    """Alibaba's openb_node_list (sn,cpu_milli,memory_mib,gpu,model), or machine,gpus,gpu_mem as of Philly."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    header = set(rows[0]) if rows else set[str]()
    try:
        if {"sn", "cpu_milli", "memory_mib", "gpu", "model"} <= header:
            return Fleet(
                tuple(
                    SimNode(
                        r["sn"], "openb", r["model"] or "cpu", int(r["gpu"]),
                        cpus=int(r["cpu_milli"]) / 1000, mem_gib=int(r["memory_mib"]) / 1024,
                    )
                    for r in rows
                )
            )  # fmt: skip
        if {"machine", "gpus", "gpu_mem"} <= header:
            return Fleet(tuple(SimNode(r["machine"], "philly", r["gpu_mem"], int(r["gpus"])) for r in rows))
    except (ValueError, TypeError) as error:
        raise FleetError(f"{path}: not a list of machines: {error}", HINT) from None
    raise FleetError(
        f"{path}: not a list of machines that is known here: it has the columns "
        f"{', '.join(sorted(header)) or 'none'}; expected sn, cpu_milli, memory_mib, gpu, model, or machine, "
        "gpus, gpu_mem; or a YAML file",
        HINT,
    )
