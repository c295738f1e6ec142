"""When this node last heard of its controller, and whether it may still let jobs run.

The controller goes on elsewhere with the jobs of a node that it has not heard of for a time; the agent stops
them well before (`fence_s` is half of that). The clock is one that nobody sets and that counts while the
machine sleeps, and the last contact is in a file: an agent that was dead for a while must know.

An address where nobody listens counts as contact: no controller is there, and the next one waits that time
from its own start. (A firewall that *rejects* looks the same; one between nodes and controller should drop.)
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from midstep.agent.journal import boot_id

_SAVE_S = 1.0


class Contact:
    """The last contact. All times are seconds of the boot's clock."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "contact.json"
        self._saved_s = 0.0
        self.fence_s: float | None = None
        self.last_s = now_s()
        self._load()

    @property
    def lost(self) -> bool:
        """It is so long ago that nothing may run any more."""
        return self.fence_s is not None and now_s() - self.last_s > self.fence_s

    @property
    def poll_s(self) -> float:
        """How often to look, and to ask for a sign of life."""
        return 1.0 if self.fence_s is None else min(1.0, self.fence_s / 8)

    def made(self, at_s: float) -> None:
        """The controller was there at that time, or nobody was. Written down now and then."""
        self.last_s = max(self.last_s, at_s)
        if self.last_s - self._saved_s >= _SAVE_S:
            self._save()

    def keep_to(self, fence_s: float | None) -> None:
        """What the controller says of how long is too long."""
        if fence_s != self.fence_s:
            self.fence_s = fence_s
            self._save()

    def _load(self) -> None:
        try:
            said = json.loads(self._path.read_text())
            self.fence_s = said["fence_s"]
            if said["boot"] == boot_id():  # else nothing of before runs
                self.last_s = said["at_s"]
        except (OSError, ValueError, KeyError):
            return

    def _save(self) -> None:
        self._saved_s = self.last_s
        said = {"boot": boot_id(), "at_s": self.last_s, "fence_s": self.fence_s}
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(said))
            os.rename(temporary, self._path)
        except OSError:
            pass  # a full disk: the next agent would fence earlier than it must, which is safe


def now_s() -> float:
    """The boot's clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
