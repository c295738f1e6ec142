"""Errors of the control package.

ControlError
|-- Rejected       a request that cannot be granted: carries the problem that the user is told
|-- StateError     the state folder cannot be used: another controller has it, another version wrote it, the
disk is full
|-- AgentRefused   an agent may not join: the message is sent to it
|-- BadBlob        an upload is not a .tar.gz
`-- NotFound       no such job, blob or file
"""

from midstep.wire.api import Problem


class ControlError(Exception):
    """The message says what, where, and what to do."""


class Rejected(ControlError):
    """A request that is answered with a problem. ``status`` as in HTTP."""

    def __init__(self, status: int, code: str, title: str, detail: str = "", hint: str = "") -> None:
        super().__init__(title)
        self.problem = Problem(title, status, code, detail, hint)


class StateError(ControlError):
    """The state folder cannot be read or written."""


class AgentRefused(ControlError):
    """Why an agent is not taken."""


class BadBlob(ControlError):
    """What was uploaded is not a .tar.gz."""


class NotFound(ControlError):
    """There is no such thing."""


def invalid(field: str, detail: str, hint: str = "") -> Rejected:
    """A field of a request does not make sense."""
    return Rejected(422, "invalid", f"{field} is not valid", detail, hint)
