"""The agent daemon of one node: ``python -m midstep.app.agent --config FILE.json``.

It may be killed at any instant: jobs go on, and the next agent of the node reads the rest from its journal.
So there is one way to end, the hard one, also for SIGTERM. Exit codes: 0 stopped, 2 its configuration, 3
refused by the controller.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from midstep.agent import faults
from midstep.agent.config import AgentConfig, load
from midstep.agent.errors import ConfigError, SessionRefused
from midstep.agent.node import Node
from midstep.agent.nursery import Nursery
from midstep.agent.session import keep_session

_BAD_CONFIG, _REFUSED = 2, 3


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="midstep-agent", description=__doc__, add_help=True)
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        config = load(arguments.config)
        faults.arm(config.crash_at)
        asyncio.run(run(config))
    except ConfigError as error:
        print(f"midstep-agent: {error}", file=sys.stderr)
        sys.exit(_BAD_CONFIG)
    except SessionRefused as error:
        print(f"midstep-agent: the controller refuses this agent: {error}", file=sys.stderr)
        sys.exit(_REFUSED)


async def run(config: AgentConfig) -> None:
    """The agent's life; returns only by an exception."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, os._exit, 0)
    node = Node(config, await Nursery.open())
    await node.start()
    fencing = asyncio.create_task(node.keep_fence())
    try:
        await keep_session(config, node)
    finally:
        fencing.cancel()


if __name__ == "__main__":
    main()
