"""What is stored while ranks run on."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from midstep.agent import staging
from midstep.agent.drivers.follow import RankProcess
from midstep.agent.drivers.pages import PageFile
from midstep.vault.snapshots import Part, Snapshots


@dataclass
class Noted:
    """Pages that take until whoever writes them is like others, and tell how modest that one was."""

    sizes: dict[str, int] = field(default_factory=dict[str, int])
    descriptors: list[int] = field(default_factory=list[int])
    dropped: bool = False

    def take(self, p: RankProcess, images: Path, files: Sequence[PageFile]) -> None:
        raise NotImplementedError

    def write(self, folder: Path, end: float) -> int:
        seen = [os.getpriority(os.PRIO_PROCESS, 0)]
        while seen[-1] > 0 and time.monotonic() < end:
            time.sleep(0.01)
            seen.append(os.getpriority(os.PRIO_PROCESS, 0))
        (folder / "seen").write_text(f"{seen[0]} {seen[-1]}")
        return len(seen)

    def drop(self) -> None:
        self.dropped = True


def test_storing_is_modest_but_comes_to_its_end_where_ranks_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PATIENCE_S", 0.2)
    vault, pages = Snapshots(tmp_path / "vault"), Noted()
    folder = tmp_path / "made"
    folder.mkdir()
    made = staging.Made("s-1", folder, Part(0, (), (), 0, {}), {0: pages})
    nbytes, _ = staging.store(made, vault, 20)
    assert nbytes > 0 and pages.dropped and not folder.exists()
    assert next(vault.root.rglob("seen")).read_text() == "19 0"
