"""Columns from and to files: CSV, and Parquet by way of pyarrow (`pip install midstep[sim]`)."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midstep.sim.errors import SimError, TraceError

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Table:
    """``text``: the cells are as written in a CSV file, "" is nothing; row 1 is on line 2 then."""

    path: Path
    columns: Mapping[str, Sequence[Cell]]
    rows: int
    text: bool

    def where(self, row: int, column: str) -> str:
        """For people; rows count from 0 here, and from 1 there."""
        line = f" (line {row + 2})" if self.text else ""
        return f"{self.path}: row {row + 1}{line}, column {column}"


def read_table(path: Path) -> Table:
    """By the name's end. TraceError: it cannot be read, or its rows have different lengths."""
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _read_csv(path: Path) -> Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        first: list[str] = next(reader, list[str]())
        header = [name.strip() for name in first]
        if not any(header):
            raise TraceError(f"{path}: there is no header: the first line names the columns")
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise TraceError(f"{path}:1: the column {twice!r} is there twice")
        rows = [row for row in reader if row]
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise TraceError(f"{path}: row {index + 1} has {len(row)} cells; there are {len(header)} columns")
    return Table(path, {name: [row[i] for row in rows] for i, name in enumerate(header)}, len(rows), True)


def _read_parquet(path: Path) -> Table:
    parquet = _pyarrow("pyarrow.parquet")
    try:
        table: Any = parquet.read_table(path)
    except OSError:
        raise
    except Exception as error:
        raise TraceError(f"{path}: not Parquet: {str(error).splitlines()[0]}") from None
    columns = {str(name): table.column(name).to_pylist() for name in table.column_names}
    return Table(path, columns, int(table.num_rows), False)


def write_csv(path: Path, columns: Mapping[str, Sequence[Cell]]) -> None:
    """Numbers in full, nothing as nothing; the same cells give the same bytes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))


def write_parquet(path: Path, columns: Mapping[str, Sequence[Cell]]) -> None:
    """SimError: there is no pyarrow."""
    arrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    parquet.write_table(arrow.table({name: list(cells) for name, cells in columns.items()}), path)


def _pyarrow(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SimError("Parquet needs pyarrow", "pip install 'midstep[sim]', or use CSV") from None
