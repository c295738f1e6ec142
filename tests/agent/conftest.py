"""Two nodes in two regions, and a controller; cleaned up whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.agent.harness import Controller, NodeBox, criu


@dataclass
class Fleet:
    controller: Controller
    root: Path
    vaults: dict[str, Path]
    nodes: list[NodeBox] = field(default_factory=list)

    def node(self, name: str, region: str = "north", with_criu: bool = True, crash_at: str = "") -> NodeBox:
        box = NodeBox(
            name, region, self.root, self.vaults[region], self.controller.port, criu() if with_criu else None
        )
        self.nodes.append(box)
        box.start(crash_at)
        return box


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    vaults = {region: tmp_path / f"vault-{region}" for region in ("north", "south")}
    controller = Controller(vaults)
    await controller.start()
    made = Fleet(controller, tmp_path, vaults)
    try:
        yield made
    finally:
        for node in made.nodes:
            print(f"--- agent of {node.name}\n{node.words()}")
            node.close()
        await controller.stop()
