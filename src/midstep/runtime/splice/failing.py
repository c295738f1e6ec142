"""A step that was made for several ranks and raised: all of them would have, so all of them do."""

from __future__ import annotations

import pickle

from .board import TEXT_BYTES


class StepFailed(RuntimeError):
    """The step that another rank made for this one raised an error in its middle."""


def pack(error: BaseException) -> str:
    """An error as text for the other ranks."""
    packed = ""
    try:
        packed = pickle.dumps(error).hex()
    except Exception:
        pass
    return packed if packed and len(packed) < TEXT_BYTES else "%s: %s" % (type(error).__name__, error)


def unpack(text: str) -> BaseException:
    """The error again, or a StepFailed with its text."""
    try:
        error = pickle.loads(bytes.fromhex(text))
    except Exception:
        error = StepFailed(text)
    return error if isinstance(error, BaseException) else StepFailed(text)
