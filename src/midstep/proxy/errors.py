"""Errors of the proxy::

ProxyError          something that the agent asked for did not work
  ProxyGone         the proxy's process ended meanwhile: start another
  DrainTimeout      a peer's marker did not come in time: the cut is not taken, the ranks may go on
Mismatch            members of one operation contradict each other: their user's fault, do not retry
"""

from __future__ import annotations


class ProxyError(RuntimeError):
    """The request failed; the text says why."""


class ProxyGone(ProxyError):
    """The proxy's process ended."""


class DrainTimeout(ProxyError):
    """The markers of some peers did not come in time."""


class Mismatch(ValueError):
    """Members of one operation contradict each other."""
