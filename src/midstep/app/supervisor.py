"""Keeps an embedded fleet running: the nodes' holders, the controller, an agent a node. ``python -m
midstep.app.supervisor --config STATE/fleet.json``; `midstep up` starts it and `midstep down` ends it.

It holds nothing: what runs is found through process files, so a supervisor that was killed is replaced by
another, which adopts everything. Whatever dies is started again, later and later if it keeps dying.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from midstep.substrate.errors import SubstrateError
from midstep.substrate.local import network
from midstep.substrate.local.nodes import ensure_node, holder_of, write_hosts
from midstep.substrate.local.paths import StatePaths
from midstep.substrate.local.plan import PLAN, FleetPlan, NodePlan
from midstep.substrate.local.processes import Identity, identify, load, spawn
from midstep.substrate.local.services import (
    agent_argv,
    agent_name,
    controller_argv,
    controller_names,
    service_environment,
)

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
HEALTHY_S = 10.0  # a process that ran this long starts at the first delay again
ROUND_S = 1.0
PR_SET_CHILD_SUBREAPER = 36


@dataclass(slots=True)
class Backoff:
    """When something that died may be started again."""

    delay_s: float = FIRST_DELAY_S
    started_at: float = 0.0
    not_before: float = 0.0

    def started(self, now: float) -> None:
        self.started_at = now

    def died(self, now: float) -> float:
        """Answers the delay, in seconds."""
        if now - self.started_at > HEALTHY_S:
            self.delay_s = FIRST_DELAY_S
        delay = self.delay_s
        self.not_before = now + delay
        self.delay_s = min(2 * self.delay_s, LONGEST_DELAY_S)
        return delay


class Service:
    """One process that shall run."""

    def __init__(self, name: str, find: Callable[[], Identity | None], start: Callable[[], Identity]) -> None:
        self.name = name
        self._find = find
        self._start = start
        self._backoff = Backoff()
        self.identity: Identity | None = None

    def ensure(self, now: float) -> None:
        """Adopt it, leave it, or start it when its delay is over."""
        if self.identity is not None and self.identity.alive:
            return
        adopted = self._find()
        if adopted is not None:
            say(f"{self.name}: adopted, pid {adopted.pid}")
            self.identity = adopted
            self._backoff.started(now)
            return
        if self.identity is not None:
            delay = self._backoff.died(now)
            say(f"{self.name}: pid {self.identity.pid} ended; again in {delay:.1f} s")
            self.identity = None
        if now >= self._backoff.not_before:
            self._try(now)

    def due_in(self, now: float) -> float:
        """Seconds until `ensure` has something to do, if nothing happens before."""
        return ROUND_S if self.identity is not None else max(0.0, self._backoff.not_before - now)

    def _try(self, now: float) -> None:
        self._backoff.started(now)
        try:
            self.identity = self._start()
            say(f"{self.name}: started, pid {self.identity.pid}")
        except (SubstrateError, OSError) as error:
            say(f"{self.name}: {error}; again in {self._backoff.died(now):.1f} s")


class Supervisor:
    """All services of one fleet."""

    def __init__(self, paths: StatePaths, plan: FleetPlan) -> None:
        self._paths = paths
        self._plan = plan
        self._stopping = False
        self._environment = service_environment(os.environ)
        self._services = [self._controller(name) for name in controller_names(plan)]
        for node in plan.nodes:
            self._services.append(self._holder(node))
            self._services.append(self._agent(node))

    def run(self) -> None:
        """Until SIGTERM or SIGINT. What it started goes on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        write_hosts(self._paths, self._plan)
        while not self._stopping:
            for service in self._services:
                service.ensure(time.monotonic())
            self._ensure_network()
            self._wait()
            _reap()
        say("stopped; controller, agents and jobs go on")

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _ensure_network(self) -> None:
        """After the nodes: a new one has got its cable already."""
        holders = {n.name: holder_of(self._paths, n.name) for n in self._plan.nodes}
        try:
            mended = network.mend(self._plan, {name: h.pid for name, h in holders.items() if h is not None})
        except SubstrateError as error:
            say(f"network: {error}")
            return
        if mended:
            say(f"made again: {', '.join(mended)}")

    def _holder(self, node: NodePlan) -> Service:
        paths, plan = self._paths, self._plan
        return Service(
            f"holder-{node.name}", lambda: holder_of(paths, node.name), lambda: ensure_node(paths, plan, node)
        )

    def _agent(self, node: NodePlan) -> Service:
        return self._service(agent_name(node.name), lambda: self._start_agent(node))

    def _controller(self, name: str) -> Service:
        return self._service(name, lambda: self._spawn(name, controller_argv(self._paths, name)))

    def _service(self, name: str, start: Callable[[], Identity]) -> Service:
        return Service(name, lambda: load(self._paths.process(name)), start)

    def _start_agent(self, node: NodePlan) -> Identity:
        holder = holder_of(self._paths, node.name)
        if holder is None:
            raise SubstrateError("its node is not there yet")
        return self._spawn(agent_name(node.name), agent_argv(holder))

    def _spawn(self, name: str, argv: list[str]) -> Identity:
        process = spawn(argv, self._paths.process(name), self._paths.log(name), self._environment)
        process.returncode = 0  # `_reap` waits for it: Popen must neither wait nor complain
        identity = identify(process.pid)
        if identity is None:
            raise SubstrateError(f"ended at once; see {self._paths.log(name)}")
        return identity

    def _wait(self) -> None:
        """Until a process ends, a delay is over, or a second has gone by."""
        now = time.monotonic()
        timeout_s = min(ROUND_S, *(s.due_in(now) for s in self._services))
        poll = select.poll()
        with contextlib.ExitStack() as handles:
            for service in self._services:
                if service.identity is not None:
                    with contextlib.suppress(OSError):
                        handle = os.pidfd_open(service.identity.pid)
                        handles.callback(os.close, handle)
                        poll.register(handle, select.POLLIN)
            poll.poll(max(20, int(timeout_s * 1000)))


def say(message: str) -> None:
    """One line into the supervisor's log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", flush=True)


def _reap() -> None:
    """Take the exit status of every child that has ended, orphans of agents included."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> int:
    """Exit status 0: told to stop; 5: another supervisor looks after this fleet."""
    parser = argparse.ArgumentParser(
        prog="midstep.app.supervisor", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--config", type=Path, required=True)
    config: Path = parser.parse_args().config
    paths = StatePaths(config.resolve().parent)
    with paths.supervisor_lock().open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another supervisor looks after this fleet")
            return 5
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        Supervisor(paths, PLAN.validate_json(paths.fleet.read_bytes())).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
