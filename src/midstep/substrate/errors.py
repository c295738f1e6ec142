"""What can go wrong while nodes are made or taken away.

SubstrateError
├── NotPermitted     this user or machine may not do it (root, a missing program)
├── FleetConflict    the state folder or the machine is used otherwise; the user chooses
├── NotAStateFolder  refused to touch a folder that is not a fleet's
└── StartTimeout     something did not come up in time; its last lines are in the message
"""

from __future__ import annotations


class SubstrateError(Exception):
    """Base of all. ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotPermitted(SubstrateError):
    """This user, or this machine, cannot make nodes."""


class FleetConflict(SubstrateError):
    """Another fleet, or this one in another shape, is in the way."""


class NotAStateFolder(SubstrateError):
    """The folder holds something else; nothing was removed."""


class StartTimeout(SubstrateError):
    """A process did not come up in time."""
