"""Errors of the agent.

AgentError
|-- ConfigError      the configuration file: the operator's; the agent does not start
|-- SessionRefused   the controller does not take this agent: the operator's; the agent stops
|-- TransferError    something fetched from the controller is not there, too slow, or not what it should be
`-- StepFailed       one step of a goal; its `Failure` says whose fault it is and whether anything changed
"""

from __future__ import annotations

from midstep.model.phase import Failure


class AgentError(Exception):
    """Something that the agent could not do; the message says what, where and what to do."""


class ConfigError(AgentError):
    """The configuration file cannot be used."""


class SessionRefused(AgentError):
    """The controller answered `Hello` with `Refused`."""


class TransferError(AgentError):
    """A blob or a snapshot could not be fetched, or holds what it must not."""


class StepFailed(AgentError):
    """A step of hold, run, dump or end."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.step}: {failure.message}")
        self.failure = failure
