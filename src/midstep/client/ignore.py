"""Which files of a work directory do not go with the job: a fixed list, and the patterns of its
.midstepignore.

Patterns are as in .gitignore: one a line, ``#`` comments, ``*`` ``?`` ``[]``, a ``/`` inside or in front ties
a pattern to the directory's root, one at the end means folders only, ``**/`` any depth, ``!`` takes files
back in; the last match decides.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

FILE = ".midstepignore"
ALWAYS = (
    ".git",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line."""

    glob: str
    anchored: bool
    folders_only: bool
    negated: bool

    def matches(self, path: str, is_folder: bool) -> bool:
        """``path`` is relative to the root, with slashes."""
        if self.folders_only and not is_folder:
            return False
        if self.anchored:
            return _match_path(path.split("/"), self.glob.split("/"))
        return fnmatch.fnmatchcase(path.rpartition("/")[2], self.glob)


class Ignore:
    """All patterns of a work directory, the fixed ones first."""

    def __init__(self, patterns: list[Pattern]) -> None:
        self._patterns = [
            Pattern(name, anchored=False, folders_only=False, negated=False) for name in ALWAYS
        ] + patterns

    @classmethod
    def of(cls, folder: Path) -> Ignore:
        """The patterns that apply in a folder."""
        try:
            lines = (folder / FILE).read_text().splitlines()
        except OSError:
            lines = []
        return cls([p for p in map(parse, lines) if p is not None])

    def __call__(self, path: str, is_folder: bool) -> bool:
        """True: leave it out."""
        verdict = False
        for pattern in self._patterns:
            if pattern.matches(path, is_folder):
                verdict = not pattern.negated
        return verdict

    def anywhere(self, path: str) -> bool:
        """True: it, or a folder that it lies in, is left out."""
        parts = path.split("/")
        return self(path, False) or any(self("/".join(parts[:n]), True) for n in range(1, len(parts)))


def parse(line: str) -> Pattern | None:
    """One line; None: empty or a comment."""
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    negated = text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    anchored = "/" in text
    return Pattern(text.lstrip("/"), anchored, folders_only, negated) if text else None


def _match_path(path: list[str], glob: list[str]) -> bool:
    if not glob:
        return not path
    if glob[0] == "**":
        return any(_match_path(path[skip:], glob[1:]) for skip in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], glob[0]) and _match_path(path[1:], glob[1:])
