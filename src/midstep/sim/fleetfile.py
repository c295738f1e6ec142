"""FLEET.yaml. What is wrong is said with line and column, and what was expected; all of it at once."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from midstep.sim.errors import FleetError
from midstep.sim.fleet import Fleet, SimNode

HINT = "docs/replay-a-trace.md describes fleets"
MOST_NODES = 200_000


class _Wrong(Exception):
    """A value is not what its field takes; says what would be."""


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.nodes: list[SimNode] = []
        self.groups: dict[str, dict[str, int]] = {}
        self.prices: dict[str, float] = {}
        self.clusters: set[str] = set()

    def say(self, node: Any, what: str) -> None:
        self.problems.append(f"{self.path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: {what}")

    def fields(self, node: Any, known: tuple[str, ...], what: str) -> dict[str, Any]:
        """Name -> its node."""
        if not isinstance(node, yaml.MappingNode):
            self.say(node, f"expected {what}, with {', '.join(known)}")
            return {}
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in found:
                self.say(key, f"{name} is given twice")
            elif known and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                expected = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
                self.say(key, f"there is no field {name!r} in {what}: {expected}")
            else:
                found[name] = value
        return found

    def items(self, parent: Any, fields: Mapping[str, Any], name: str) -> list[Any]:
        node = fields.get(name)
        if node is None:
            if fields:
                self.say(parent, f"there are no {name}: expected a list of them")
            return []
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.say(node, f"{name}: expected a list of them, with one or more")
            return []
        return list(node.value)

    def value(self, fields: Mapping[str, Any], name: str, convert: Callable[[Any], Any], default: Any) -> Any:
        node = fields.get(name)
        if node is None:
            return default
        try:
            if not isinstance(node, yaml.ScalarNode):
                raise _Wrong("one value")
            return convert(yaml.safe_load(node.value) if node.style is None else node.value)
        except _Wrong as wrong:
            got = f", got {node.value!r}" if isinstance(node, yaml.ScalarNode) else ""
            self.say(node, f"{name}: expected {wrong}{got}")
        return default


def read_fleet(path: Path) -> Fleet:
    """FLEET.yaml, or a public list of machines (CSV). FleetError: everything that is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if path.suffix == ".csv":
        return _machines(path, text)
    reader = _Reader(path)
    try:
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise FleetError(f"{where}: not YAML: {what or error}", HINT) from None
    if root is None:
        raise FleetError(f"{path}:1:1: it is empty: expected regions", HINT)
    _root(reader, root)
    if reader.problems:
        raise FleetError("\n  ".join(reader.problems), HINT)
    return Fleet(tuple(reader.nodes), reader.groups, reader.prices)


def _root(reader: _Reader, root: Any) -> None:
    fields = reader.fields(root, ("regions", "prices"), "a fleet")
    for region in reader.items(root, fields, "regions"):
        inner = reader.fields(region, ("name", "clusters"), "a region")
        name = _name(reader, region, inner)
        for cluster in reader.items(region, inner, "clusters"):
            _cluster(reader, name, cluster)
    for kind, node in reader.fields(fields["prices"], (), "prices").items() if "prices" in fields else ():
        reader.prices[kind] = reader.value({kind: node}, kind, _amount, 0.0)


def _cluster(reader: _Reader, region: str, cluster: Any) -> None:
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
        reader.groups[name] = {group: reader.value(groups, group, _count, 0) for group in groups}


def _nodes(
    reader: _Reader, region: str, cluster: str, rack: str, parent: Any, fields: Mapping[str, Any]
) -> None:
    for kind, node in enumerate(reader.items(parent, fields, "nodes")):
        inner = reader.fields(node, ("name", "count", "devices", "device_type", "cpus", "mem_gib"), "nodes")
        for needed in ("devices", "device_type"):
            if inner and needed not in inner:
                reader.say(
                    node, f"there is no {needed}: expected {'how many' if needed == 'devices' else 'a name'}"
                )
        count = reader.value(inner, "count", _positive, 1)
        if len(reader.nodes) + count > MOST_NODES:
            reader.say(node, f"expected at most {MOST_NODES} nodes in all, got more")
            count = 0
        stem = reader.value(inner, "name", _text, f"{cluster}{'-' + rack if rack else ''}-n{kind + 1}")
        like = SimNode(
            name=stem,
            cluster=cluster,
            device_type=reader.value(inner, "device_type", _text, ""),
            devices=reader.value(inner, "devices", _count, 0),
            region=region,
            rack=rack,
            cpus=reader.value(inner, "cpus", _amount, 0.0),
            mem_gib=reader.value(inner, "mem_gib", _amount, 0.0),
        )
        width = len(str(count - 1))
        reader.nodes += [
            replace(like, name=f"{stem}-{number:0{width}}") if count > 1 else like for number in range(count)
        ]


def _name(reader: _Reader, node: Any, fields: Mapping[str, Any]) -> str:
    if fields and "name" not in fields:
        reader.say(node, "there is no name: expected one")
    return reader.value(fields, "name", _text, "")


def _text(value: Any) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
        return str(value)
    raise _Wrong("a name")


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_NODES:
        return value
    raise _Wrong("a whole number of 0 or more")


def _positive(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise _Wrong("a whole number of 1 or more")


def _amount(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    raise _Wrong("a number of 0 or more")


def _machines(path: Path, text: str) -> Fleet:
    """Alibaba's openb_node_list (sn,cpu_milli,memory_mib,gpu,model), or machine,gpus,gpu_mem as of Philly."""
    rows = list(csv.DictReader(text.splitlines()))
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
