"""Public traces in the form that their authors published them; which one it is, is seen from its columns.

Philly     cluster_job_log, JSON (msr-fiddle/philly-traces)
Helios     cluster_log.csv (S-Lab-System-Group/HeliosData)
openb      openb_pod_list_*.csv (alibaba/clusterdata, cluster-trace-gpu-v2023)
Tiresias   *_job.csv of its simulator (SymbioticLab/Tiresias)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from midstep.sim import schema
from midstep.sim.errors import TraceError
from midstep.sim.schema import HINT
from midstep.sim.tables import Cell, Table, read_table
from midstep.sim.trace import Trace

Columns = dict[str, list[Cell]]


def read_trace(path: Path) -> Trace:
    """A trace in our form or in one of the public ones. TraceError: what is wrong with it."""
    if path.suffix == ".json" or path.name == "cluster_job_log":
        return _philly(path)
    table = read_table(path)
    if schema.is_ours(table):
        return schema.read(table, path.stem)
    for needs, convert in _PUBLIC:
        if needs <= set(table.columns):
            return _converted(table, convert)
    known = "; ".join(sorted(", ".join(sorted(needs)) for needs, _ in _PUBLIC))
    raise TraceError(
        f"{path}: not a trace that is known here: it has the columns {', '.join(table.columns)}; "
        f"expected {', '.join(schema.REQUIRED)} (or of a public one: {known})",
        HINT,
    )


def _converted(table: Table, convert: Callable[[Table], tuple[Columns, list[int]]]) -> Trace:
    columns, rows = convert(table)
    ours = Table(table.path, columns, len(rows), False)
    trace = schema.read(ours, table.path.stem)
    left_out = table.rows - len(rows)
    return replace(trace, notes=(f"{left_out} rows without a run were left out",)) if left_out else trace


def _rebased(times: list[float | None]) -> tuple[list[int], list[int]]:
    """Rows that have a time, and those times from the earliest on."""
    rows = [row for row, time in enumerate(times) if time is not None]
    first = min((times[row] or 0.0 for row in rows), default=0.0)
    return rows, [int((times[row] or 0.0) - first) for row in rows]


def _moment(cell: Cell) -> float | None:
    """Seconds, from a number or from a local date and time."""
    text = "" if cell is None else str(cell).strip()
    if text in ("", "None", "null", "nan"):
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return (datetime.fromisoformat(text).replace(tzinfo=None) - datetime(2000, 1, 1)).total_seconds()
    except ValueError:
        return None


def _pick(table: Table, column: str, rows: list[int]) -> list[Cell]:
    return [table.columns[column][row] for row in rows] if column in table.columns else []


def _helios(table: Table) -> tuple[Columns, list[int]]:
    rows, submit = _rebased([_moment(cell) for cell in table.columns["submit_time"]])
    columns: Columns = {
        "job_id": _pick(table, "job_id", rows),
        "submit_s": list(submit),
        "duration_s": _pick(table, "duration", rows),
        "gpus": _pick(table, "gpu_num", rows),
        "user": _pick(table, "user", rows),
        "group": _pick(table, "vc", rows),
        "status": _pick(table, "state", rows),
        "cpu": _pick(table, "cpu_num", rows),
    }
    return {name: cells for name, cells in columns.items() if cells or not rows}, rows


def _openb(table: Table) -> tuple[Columns, list[int]]:
    starts = [_moment(cell) for cell in table.columns["scheduled_time"]]
    ends = [_moment(cell) for cell in table.columns["deletion_time"]]
    created = [_moment(cell) for cell in table.columns["creation_time"]]
    known = [c if s is not None and e is not None else None for c, s, e in zip(created, starts, ends)]
    rows, submit = _rebased(known)
    milli = [float(table.columns["gpu_milli"][row] or 0) for row in rows]
    count = [int(table.columns["num_gpu"][row] or 0) for row in rows]
    columns: Columns = {
        "job_id": _pick(table, "name", rows),
        "submit_s": list(submit),
        "duration_s": [int((ends[row] or 0) - (starts[row] or 0)) for row in rows],
        "gpus": [n * m / 1000 for n, m in zip(count, milli)],
        "gpu_type": _pick(table, "gpu_spec", rows),
        "group": _pick(table, "qos", rows),
        "status": _pick(table, "pod_phase", rows),
        "cpu": [float(cell or 0) / 1000 for cell in _pick(table, "cpu_milli", rows)],
        "mem_gib": [float(cell or 0) / 1024 for cell in _pick(table, "memory_mib", rows)],
    }
    return {name: cells for name, cells in columns.items() if cells or not rows}, rows


def _tiresias(table: Table) -> tuple[Columns, list[int]]:
    rows, submit = _rebased([_moment(cell) for cell in table.columns["submit_time"]])
    return {
        "job_id": _pick(table, "job_id", rows),
        "submit_s": list(submit),
        "duration_s": _pick(table, "duration", rows),
        "gpus": _pick(table, "num_gpu", rows),
    }, rows


_PUBLIC: tuple[tuple[set[str], Callable[[Table], tuple[Columns, list[int]]]], ...] = (
    ({"job_id", "gpu_num", "submit_time", "duration", "state"}, _helios),
    ({"name", "num_gpu", "gpu_milli", "creation_time", "deletion_time", "scheduled_time"}, _openb),
    ({"job_id", "num_gpu", "submit_time", "duration", "iterations"}, _tiresias),
)


def _philly(path: Path) -> Trace:
    """Its duration goes from the first attempt's start to the last one's end."""
    try:
        jobs: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: {getattr(error, 'strerror', None) or f'not JSON: {error}'}") from None
    if not isinstance(jobs, list):
        raise TraceError(f"{path}: expected a list of jobs, as in cluster_job_log", HINT)
    rows: list[tuple[float, float, int, dict[str, Any]]] = []
    for number, job in enumerate(jobs):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        try:
            found = _philly_job(job)  # pyright: ignore[reportUnknownArgumentType]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise TraceError(
                f"{path}: job {number + 1} is not as in cluster_job_log: {error!r}", HINT
            ) from None
        if found is not None:
            rows.append(found)
    if not rows:
        raise TraceError(f"{path}: no job in it has run", HINT)
    first = min(row[0] for row in rows)
    columns: Columns = {
        "job_id": [str(row[3]["jobid"]) for row in rows],
        "submit_s": [int(row[0] - first) for row in rows],
        "duration_s": [int(row[1]) for row in rows],
        "gpus": [row[2] for row in rows],
        "user": [str(row[3].get("user") or "") for row in rows],
        "group": [str(row[3].get("vc") or "") for row in rows],
        "status": [str(row[3].get("status") or "") for row in rows],
    }
    trace = schema.read(Table(path, columns, len(rows), False), path.stem)
    left_out = len(jobs) - len(rows)  # pyright: ignore[reportUnknownArgumentType]
    return replace(trace, notes=(f"{left_out} jobs without a run were left out",)) if left_out else trace


def _philly_job(job: dict[str, Any]) -> tuple[float, float, int, dict[str, Any]] | None:
    attempts = [a for a in job["attempts"] if _moment(a.get("start_time")) and _moment(a.get("end_time"))]
    submitted = _moment(job["submitted_time"])
    if not attempts or submitted is None:
        return None
    begin, end = _moment(attempts[0]["start_time"]), _moment(attempts[-1]["end_time"])
    gpus = sum(len(place["gpus"]) for place in attempts[0]["detail"])
    return submitted, max(0.0, (end or 0.0) - (begin or 0.0)), gpus, job
