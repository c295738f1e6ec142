"""Charts as SVG, drawn by matplotlib; the same figures give the same bytes."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from midstep.sim.errors import SimError

Line = tuple[Sequence[float], Sequence[float]]
SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, and it can be searched
    "svg.hashsalt": "midstep",  # else ids are random
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
}


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines by name. ``steps``: a value holds until the next. ``log``: of the horizontal axis."""

    title: str
    across: str
    up: str
    lines: Mapping[str, Line]
    log: bool = False
    steps: bool = False
    level: float | None = None  # a dashed line, such as all devices


def svg(chart: Chart) -> str:
    """An `<svg>` element. SimError: there is no matplotlib."""
    matplotlib = _import("matplotlib")
    figures = _import("matplotlib.figure")
    with matplotlib.rc_context(SETTINGS):
        figure: Any = figures.Figure(figsize=(7.2, 3.2), layout="constrained")
        axes: Any = figure.add_subplot()
        for name, (x, y) in chart.lines.items():
            axes.plot(x, y, label=name, linewidth=1.2, drawstyle="steps-post" if chart.steps else "default")
        if chart.level is not None:
            axes.axhline(chart.level, color="0.5", linestyle="--", linewidth=0.8)
        if chart.log:
            axes.set_xscale("symlog", linthresh=1.0)
            axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set(xlabel=chart.across, ylabel=chart.up)
        axes.set_title(chart.title, loc="left", fontsize=10)
        if len(chart.lines) > 1:
            axes.legend(frameon=False, fontsize=8)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :].strip()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SimError("reports need matplotlib", "pip install 'midstep[sim]'") from None
