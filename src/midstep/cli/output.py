"""Tables on a terminal, aligned columns in a pipe, JSON for scripts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from midstep.client.types import DeviceView

STYLES = {
    "running": "green",
    "completed": "green",
    "ok": "green",
    "failed": "red",
    "bad": "red",
    "cancelled": "dim",
    "suspended": "yellow",
    "warn": "yellow",
    "queued": "yellow",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title, and whether its values are numbers."""

    title: str
    right: bool = False


def columns(*titles: str) -> list[Column]:
    """Columns by their titles; one that begins with ``>`` holds numbers."""
    return [Column(title.removeprefix(">"), title.startswith(">")) for title in titles]


def pause(seconds: float) -> None:
    """Wait while following something. BrokenPipeError: nobody reads our output any more (`... -f | head`),
    which would else be noticed only when there is something to say."""
    import select

    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # not a real file
        time.sleep(seconds)
        return
    poll = select.poll()
    poll.register(output, 0)
    if poll.poll(seconds * 1000):
        raise BrokenPipeError


def print_json(value: Any) -> None:
    """Any of the client's types, as JSON. One line a value in a pipe, so that streams can be read line by
    line."""
    from pydantic_core import to_jsonable_python

    print(json.dumps(to_jsonable_python(value), indent=2 if sys.stdout.isatty() else None), flush=True)


def print_table(heads: Sequence[Column], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Rich on a terminal, else plain columns that `awk` can read."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table(heads, rows, title))
    else:
        print_plain(heads, rows)


def print_plain(heads: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Columns two blanks apart; an empty value is `-`, so that every row has as many words as columns at
    least."""
    lines = [[c.title.upper() for c in heads], *([value or "-" for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        cells = (
            value.rjust(width) if column.right else value.ljust(width)
            for value, width, column in zip(line, widths, heads, strict=True)
        )
        print("  ".join(cells).rstrip())


def say(message: str) -> None:
    """For people, beside the output: on standard error."""
    print(message, file=sys.stderr, flush=True)


def duration(seconds: float | None) -> str:
    """'3.2 ms', '4.1 s', '12 min', '3 h 05 min'."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(nbytes: int | None) -> str:
    """'0 B', '12.3 kB', '4.5 MB'."""
    if nbytes is None:
        return ""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def counted(number: int | float, noun: str = "device") -> str:
    """A number of them in words."""
    if 0 < number < 1:
        return f"{number:g} of a {noun}"
    return f"{number} {noun}{'' if number == 1 else 's'}"


def share_of(device: DeviceView, job: str, name: str = "") -> str:
    """A job on a device; with its part in brackets, if it does not have all of it."""
    part = device.parts.get(job)
    return f"{name or job}{'' if part is None else f' ({part:g})'}"


def percent(share: float | None) -> str:
    """'95%'; '' for None."""
    return "" if share is None else f"{share:.0%}"


def clock(at_s: float | None) -> str:
    """Local time; with the date when it is not today."""
    if at_s is None:
        return ""
    at, now = time.localtime(at_s), time.localtime()
    today = (at.tm_year, at.tm_yday) == (now.tm_year, now.tm_yday)
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", at)


def age(since_s: float, until_s: float | None = None) -> str:
    """How long it has been, or was."""
    return duration(max(0.0, (time.time() if until_s is None else until_s) - since_s))


def table(heads: Sequence[Column], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """For a terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in heads:
        made.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(value, style=STYLES.get(value, "")) for value in row))
    return made
