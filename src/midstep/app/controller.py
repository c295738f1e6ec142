"""The controller process: ``python -m midstep.app.controller --config FILE.json``.

The file: {"state_dir": ..., "fleet": NAME, "token": SECRET, "host": ..., "port": ..., "regions": {NAME:
VAULT_FOLDER}}. SIGTERM and SIGINT end it cleanly; killed at any moment, the next one goes on from what the
last commit says. Exit codes: 0 ended, 2 the configuration or the state folder cannot be used, 3 it cannot
listen there.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import uvicorn
from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError

from midstep.api.app import build
from midstep.control.errors import ControlError
from midstep.control.region import REST_S, Region, Settings
from midstep.model.job import CheckpointRule
from midstep.policy.intervals import FLEET

T = TypeVar("T")
LOG = logging.getLogger("midstep.controller")
_MAX_MESSAGE_BYTES = 256 << 20  # a report may carry the whole content of a rendezvous store


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """The configuration file."""

    state_dir: Path
    fleet: str
    token: str
    host: str
    port: int
    regions: dict[str, Path]
    heartbeat_s: float = 2.0
    stall_s: float = 30.0
    checkpoints: CheckpointRule = FLEET
    lost_node_s: float = 60.0
    rest_s: float = REST_S
    above: str = ""  # the URL of the global controller, if there is one


class Server(uvicorn.Server):
    """Uvicorn, which after a clean end kills its own process with the signal that asked for it: here that is
    exit 0."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """SIGTERM and SIGINT end the server."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class ConfigError(Exception):
    """The configuration file cannot be used."""


def read_config(kind: type[T], path: Path, whose: str) -> T:
    """A configuration file as a dataclass; raises ConfigError."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {whose} configuration {path}: {error.strerror}") from None
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(f"{path} is not {whose} configuration: {faults}") from None


def load(path: Path) -> ControllerConfig:
    """Read and check a configuration file; raises ConfigError."""
    config = read_config(ControllerConfig, path, "a controller's")
    if not config.token or not config.regions:
        raise ConfigError(f"{path}: a token and at least one region are needed")
    if not 0 <= config.port <= 65535 or config.heartbeat_s <= 0 or config.stall_s <= 0:
        raise ConfigError(f"{path}: port must be within 0 and 65535, heartbeat_s and stall_s positive")
    if config.rest_s < 0:
        raise ConfigError(f"{path}: rest_s must be 0 or more")
    if config.lost_node_s < (least_s := 8 * config.heartbeat_s + 4):
        raise ConfigError(f"{path}: lost_node_s must be at least {least_s:g}: busy nodes are silent, too")
    return config


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; OSError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def serve(config: ControllerConfig) -> int:
    """Run until a signal; returns the exit code."""
    try:
        settings = Settings(
            config.state_dir,
            config.fleet,
            config.token,
            config.regions,
            config.heartbeat_s,
            config.stall_s,
            config.checkpoints,
            config.lost_node_s,
            rest_s=config.rest_s,
            archiver=(sys.executable, "-m", "midstep.app.archiver"),
            above=config.above,
        )
        region = Region.open(settings)
    except ControlError as error:
        LOG.error("%s", error)
        return 2
    count = len(region.service.records)
    return serve_app(build(region), config.host, config.port, f"fleet {config.fleet}, {count} jobs")


def serve_app(app: FastAPI, host: str, port: int, what: str) -> int:
    """Serve an application until a signal; returns the exit code."""
    try:
        listener = listen(host, port)
    except OSError as error:
        LOG.error("cannot listen on %s port %d: %s", host, port, error.strerror)
        return 3
    host, port = listener.getsockname()[:2]
    LOG.info("%s: listening on http://%s:%d", what, host, port)
    options = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        ws_ping_interval=None,  # the agents' reports are the heartbeat
        ws_max_size=_MAX_MESSAGE_BYTES,
    )
    Server(options).run(sockets=[listener])
    LOG.info("ended; jobs go on")
    return 0


def main() -> int:
    """The entry point."""
    return parse("midstep.app.controller", "Run a fleet's controller.", lambda path: serve(load(path)))


def parse(program: str, what: str, run: Callable[[Path], int]) -> int:
    """``--config FILE.json``, run; the exit code."""
    parser = argparse.ArgumentParser(prog=program, description=what)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.json")
    arguments = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
    try:
        return run(arguments.config)
    except ConfigError as error:
        LOG.error("%s", error)
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
