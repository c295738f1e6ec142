"""What a request can come to.

ClientError            ``hint`` says what to do; ``code`` is stable, for scripts
├── NoFleet            nothing answers: start it, then try again
├── NotAllowed         the fleet's token is not accepted
├── NotFound           no such job, node or region
├── Conflict           not in the job's present state; look at it and decide again
├── Refused            the request itself is wrong; do not repeat it unchanged
├── WaitTimeout        what was asked for goes on, but not within the time given
├── LocalProblem       this side: a file or folder that cannot be read or written
└── FleetFault         the controller's fault; its log says more
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of all."""

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code or type(self).__name__


class NoFleet(ClientError):
    """No fleet is known in this state folder, or it does not answer."""


class NotAllowed(ClientError):
    """The token is not the fleet's."""


class NotFound(ClientError):
    """There is no such thing."""


class Conflict(ClientError):
    """Not possible in the present state."""


class Refused(ClientError):
    """The request is wrong."""


class WaitTimeout(ClientError):
    """It takes longer than one was willing to wait."""


class LocalProblem(ClientError):
    """A file or folder of the user's."""


class FleetFault(ClientError):
    """The controller failed."""
