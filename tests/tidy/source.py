"""Reading our own source for the tests beside this file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.tidy.rules import PACKAGE


@dataclass(frozen=True, slots=True)
class Import:
    module: str  # dotted, absolute
    line: int


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    line: int
    lines: int


@dataclass(frozen=True)
class Module:
    name: str  # path below src/midstep
    text: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        return self.name.split("/")[0]

    def below(self, places: tuple[str, ...]) -> bool:
        return any(self.name == place or self.name.startswith(f"{place}/") for place in places)


@cache
def modules() -> tuple[Module, ...]:
    """Every Python file of the package that lies in a folder."""
    return tuple(_read(path) for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE)


def _read(path: Path) -> Module:
    text = path.read_text()
    return Module(str(path.relative_to(PACKAGE)), text, ast.parse(text, str(path)))


def imports(module: Module) -> Iterator[Import]:
    """Also those inside functions and under TYPE_CHECKING: a layer that is crossed late is crossed."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            # `from midstep import x` names a folder of ours; elsewhere the module itself says enough
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "midstep" else [base]
            yield from (Import(name, node.lineno) for name in names)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = ["midstep", *module.name.split("/")[:-1]]
    start = package[: len(package) - (node.level - 1)]
    return ".".join([*start, node.module] if node.module else start)


def calls(module: Module) -> Iterator[tuple[str, int]]:
    """Dotted names of what is called or handed on, through the import it came by: (`time.sleep`, line)."""
    known: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` makes `a` known, `import a.b as c` makes `c` known as `a.b`
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                known[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            head, *rest = _dotted(node)
            if head in known:
                yield ".".join([known[head], *rest]), node.lineno


def _dotted(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else ["?"]


def functions(module: Module) -> Iterator[Function]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1)
