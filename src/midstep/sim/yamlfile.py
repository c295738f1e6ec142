"""YAML from users, read so that whatever is wrong is said with line and column, and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from midstep.sim.errors import SimError

T = TypeVar("T")


class Wrong(Exception):
    """A value is not what its field takes; says what would be."""


class Reader:
    """Collects what is wrong with a file, so that all of it can be said at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    def say(self, node: Any, what: str) -> None:
        """One more problem."""
        self.problems.append(f"{self.path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: {what}")

    def fields(self, node: Any, known: tuple[str, ...], what: str) -> dict[str, Any]:
        """Name -> its node. ``known`` empty: any name."""
        if not isinstance(node, yaml.MappingNode):
            self.say(node, f"expected {what}{', with ' + ', '.join(known) if known else ''}")
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
        """Of a list that has to be there."""
        node = fields.get(name)
        if node is None:
            if fields:
                self.say(parent, f"there are no {name}: expected a list of them")
            return []
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.say(node, f"{name}: expected a list of them, with one or more")
            return []
        return list(node.value)

    def value(self, fields: Mapping[str, Any], name: str, convert: Callable[[Any], T], default: T) -> T:
        """Of a field that may be left out. ``convert`` raises `Wrong`."""
        node = fields.get(name)
        if node is None:
            return default
        try:
            if not isinstance(node, yaml.ScalarNode):
                raise Wrong("one value")
            return convert(yaml.safe_load(node.value) if node.style is None else node.value)
        except Wrong as wrong:
            got = f", got {node.value!r}" if isinstance(node, yaml.ScalarNode) else ""
            self.say(node, f"{name}: expected {wrong}{got}")
        return default


def compose(path: Path, error: type[SimError], hint: str, expected: str) -> Any:
    """The file's root node; ``error``: it cannot be read, is not YAML, or is empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as why:
        raise error(f"{path}: {getattr(why, 'strerror', None) or why}") from None
    try:
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as why:
        mark, what = getattr(why, "problem_mark", None), getattr(why, "problem", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise error(f"{where}: not YAML: {what or why}", hint) from None
    if root is None:
        raise error(f"{path}:1:1: it is empty: expected {expected}", hint)
    return root


def text(value: Any) -> str:
    """A name."""
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
        return str(value)
    raise Wrong("a name")


def count(most: int) -> Callable[[Any], int]:
    """A whole number from 0 on."""

    def convert(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
            return value
        raise Wrong(f"at most {most}" if _over(value, most) else "a whole number of 0 or more")

    return convert


def yes_or_no(value: Any) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise Wrong("true or false")


def positive(value: Any) -> int:
    """A whole number from 1 on."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise Wrong("a whole number of 1 or more")


def amount(most: float = 1e12, least: float = 0.0) -> Callable[[Any], float]:
    """A number."""

    def convert(value: Any) -> float:
        value = _number(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value < most:
            return float(value)
        raise Wrong(f"a number below {most:g}" if _over(value, most) else f"a number of {least:g} or more")

    return convert


def _number(value: Any) -> Any:
    """1e9 is a number in YAML 1.2, and text to the reader that we have."""
    try:
        return float(value) if isinstance(value, str) and value[:1].isdecimal() else value
    except ValueError:
        return value


def _over(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= most
