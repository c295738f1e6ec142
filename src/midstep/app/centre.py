"""The global controller's process: ``python -m midstep.app.centre --config FILE.json``.

The file: {"state_dir": ..., "fleet": NAME, "token": SECRET, "host": ..., "port": ..., "regions": {NAME: URL
of its controller}}. SIGTERM and SIGINT end it cleanly; killed at any moment, the next one asks the regions
what is under way. Exit codes as the controller's.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from midstep.api.app import our_version
from midstep.api.federation import build
from midstep.app.controller import ConfigError, parse, read_config, serve_app
from midstep.control.errors import ControlError
from midstep.federation.centre import PATIENCE_S, Centre, Settings

LOG = logging.getLogger("midstep.federation")


@dataclass(frozen=True, slots=True)
class CentreConfig:
    """The configuration file."""

    state_dir: Path
    fleet: str
    token: str
    host: str
    port: int
    regions: dict[str, str]
    patience_s: float = PATIENCE_S


def load(path: Path) -> CentreConfig:
    """Read and check a configuration file; raises ConfigError."""
    config = read_config(CentreConfig, path, "the global controller's")
    if not config.token or not config.regions:
        raise ConfigError(f"{path}: a token and at least one region are needed")
    if not 0 <= config.port <= 65535 or config.patience_s < 0:
        raise ConfigError(f"{path}: port must be within 0 and 65535, patience_s 0 or more")
    return config


def serve(config: CentreConfig) -> int:
    """Run until a signal; returns the exit code."""
    names = (config.state_dir, config.fleet, config.token, config.regions)
    try:
        centre = Centre.open(Settings(*names, our_version(), config.patience_s))
    except ControlError as error:
        LOG.error("%s", error)
        return 2
    regions = ", ".join(config.regions)
    return serve_app(build(centre), config.host, config.port, f"fleet {config.fleet}, regions {regions}")


def main() -> int:
    """The entry point."""
    return parse("midstep.app.centre", "Run a fleet's global controller.", lambda path: serve(load(path)))


if __name__ == "__main__":
    sys.exit(main())
