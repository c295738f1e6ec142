"""Job files: YAML with the fields of `midstep run`. What is wrong is said with line and column, all of it at
once."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from midstep.cli.checkpoints import parse_every
from midstep.cli.exits import UsageError
from midstep.cli.job import JobFile, whole_or_part
from midstep.model.job import JobKind
from midstep.model.tiers import Priority, Tier


class Wrong(Exception):
    """A value is not what its field takes; says what would be."""


def _text(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise Wrong("a text")


def _positive(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise Wrong("a whole number of 1 or more")


def _devices(value: Any) -> int | float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return whole_or_part(float(value))
    except ValueError:
        pass
    raise Wrong("a whole number of 1 or more, or a part of one device: 0.5")


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise Wrong("a whole number of 0 or more")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Wrong("true or false")


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1:
        return float(value)
    raise Wrong("a number of seconds, 1 or more")


def _every(value: Any) -> str:
    if value is False:  # YAML's word for off
        return "off"
    try:
        parse_every(str(value))
    except UsageError:
        raise Wrong("auto, off, or a number of seconds, 1 or more") from None
    return str(value)


def _command(value: Any) -> list[str]:
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise Wrong(f"a command line ({error})") from None
    if isinstance(words, list) and words and all(isinstance(w, str | int | float) for w in words):  # pyright: ignore[reportUnknownVariableType]
        return [str(w) for w in words]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    raise Wrong("a command line, or a list of its words")


def _env(value: Any) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(v, str | int | float) for v in value.values()):  # pyright: ignore[reportUnknownVariableType]
        return {str(k): _env_word(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    raise Wrong("names with values (NAME: value)")


def _env_word(value: str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _one_of(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value in words:
            return str(value)
        raise Wrong(f"one of {', '.join(words)}")

    return check


FIELDS: dict[str, Callable[[Any], Any]] = {
    "command": _command,
    "workdir": _text,
    "name": _text,
    "devices": _devices,
    "ranks": _positive,
    "tier": _one_of(*Tier),
    "kind": _one_of(*JobKind),
    "device_type": _text,
    "env": _env,
    "threads": _positive,
    "region": _text,
    "node": _text,
    "retries": _whole,
    "checkpoint_every": _every,
    "checkpoint_min": _seconds,
    "checkpoint_max": _seconds,
    "keep": _positive,
    "priority": _one_of(*Priority),
    "project": _text,
    "min_devices": _positive,
    "elastic": _flag,
    "spot_ok": _flag,
}


def read(path: Path) -> JobFile:
    """Read a job file; a relative ``workdir`` is relative to it. UsageError: everything that is wrong with
    it."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    problems: list[str] = []
    values = _values(path, text, problems)
    if "command" not in values and not problems:
        problems.append(f"{path}:1:1: there is no command: expected a command line, or a list of its words")
    if problems:
        raise UsageError("\n  ".join(problems), "docs/run-jobs.md describes job files")
    if "workdir" in values:
        values["workdir"] = path.parent / Path(values["workdir"]).expanduser()
    return JobFile(**values)


def _values(path: Path, text: str, problems: list[str]) -> dict[str, Any]:
    try:
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problems.append(f"{where}: not YAML: {what or error}")
        return {}
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{path}:1:1: expected fields (NAME: value)")
        return {}
    values: dict[str, Any] = {}
    for key, node in root.value:
        name = str(key.value)
        if name in values:
            problems.append(f"{_at(path, key)}: {name} is given twice")
        values[name] = _value(path, name, key, node, problems)
    return values


def _value(path: Path, name: str, key: Any, node: Any, problems: list[str]) -> Any:
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, 1)
        expected = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(FIELDS)}"
        problems.append(f"{_at(path, key)}: there is no field {name!r}: {expected}")
        return None
    try:
        return FIELDS[name](_plain(node))
    except Wrong as wrong:
        got = f", got {node.value!r}" if isinstance(node, yaml.ScalarNode) else ""
        problems.append(f"{_at(path, node)}: {name}: expected {wrong}{got}")
    except yaml.YAMLError as error:
        problems.append(f"{_at(path, node)}: {name}: {error}")
    return None


def _plain(node: Any) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)  # pyright: ignore[reportUnknownMemberType]
    finally:
        loader.dispose()


def _at(path: Path, node: Any) -> str:
    return f"{path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
