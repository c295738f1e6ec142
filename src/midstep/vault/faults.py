"""Fault points of the vault: named instants at which a test can have a process die by SIGKILL, as a machine
dies. Nothing is armed in a real fleet."""

from __future__ import annotations

import os
import signal

POINTS = (
    "store:before",  # nothing is written
    "store:leased",
    "store:midway",  # chunks are in packs, no index names them
    "store:written",  # all chunks are durable and indexed
    "commit:before",  # the manifest's bytes are made
    "commit:after",  # the manifest is there
    "store:after",  # the lease is given back
    "retain:before",
    "retain:midway",  # the first manifest is forgotten
    "gc:locked",
    "gc:marked",
    "gc:repacked",
    "gc:midway",  # the first packs are gone
    "gc:after",
    "restore:before",
    "restore:midway",  # the first folder is there
    "restore:written",
    "restore:after",
)

_armed = ""


def arm(point: str) -> None:
    """Die at ``point``; the empty string disarms. ValueError: there is no such point."""
    global _armed
    if point and point not in POINTS:
        raise ValueError(f"there is no fault point {point!r}; there are {', '.join(POINTS)}")
    _armed = point


def pass_point(point: str) -> None:
    """Die here if this point is armed. An unknown point is our own mistake."""
    assert point in POINTS, point
    if point == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
