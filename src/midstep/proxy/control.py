"""The proxy's process: engine in the main thread, the agent's requests in another.

A request is a line of JSON ``{"id", "do", ...}``, its answer ``{"id", "ok", ...}`` or ``{"id", "error",
"kind"}``. When the agent's end closes, the proxy ends: it holds nothing that another could not read back.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from midstep.proxy.attach import Scanner
from midstep.proxy.config import ProxyConfig, from_line
from midstep.proxy.engine import Engine
from midstep.proxy.errors import DrainTimeout, ProxyError
from midstep.proxy.metering import Meters, seen, to_lines
from midstep.proxy.peers import Peer, Peers
from midstep.proxy.report import Drained, pending, status, to_json
from midstep.proxy.seats import Seats
from midstep.proxy.store import Store

_log = logging.getLogger(__name__)
_POLL_S = 0.05
_GONE_S = 2.0  # a connection that broke is up again long before; without, the proxy there has ended
T = TypeVar("T")


def serve(control: socket.socket) -> None:
    """Be a proxy until the agent says stop or goes away. The first line on ``control`` is the
    configuration."""
    lines = control.makefile("rb")
    first = lines.readline()
    if not first:
        return
    config = from_line(first)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    np.seterr(all="ignore")  # a job's overflow is the job's
    Proxy(config, control).run(lines)


class Proxy:
    """One proxy process."""

    def __init__(self, config: ProxyConfig, control: socket.socket) -> None:
        self._config = config
        self._control = control
        store = Store(config.store_path, config.store) if config.leader else None
        seats = Seats(config.epoch, config.devices, config.world_size, config.take_turns)
        self._engine = Engine(config.index, store, seats)
        self._peers = Peers(
            config.job_id,
            config.epoch,
            config.index,
            config.listen_host,
            self._engine.deliver,
            self._engine.changed,
        )
        self._meters = Meters()
        self._scanner = Scanner(
            config.epoch,
            config.run_dirs,
            lambda box: self._engine.call(self._engine.attach, box),
            lambda box, how: self._engine.call(self._engine.detach, box, how),
            self._meters.found,
        )
        self._answers = threading.Lock()

    def run(self, lines: Any) -> None:
        """Serve; returns when the proxy is to end."""
        self._answer({"id": 0, "ok": True, "port": self._peers.port, "pid": os.getpid()})
        threading.Thread(target=self._listen, args=(lines,), name="proxy-control", daemon=True).start()
        # Who posts goes on until it waits: the engine, once awake, would take its processor just then.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        self._engine.run()

    def _listen(self, lines: Any) -> None:
        for line in lines:
            request = json.loads(line)
            threading.Thread(target=self._handle, args=(request,), daemon=True).start()
        self._engine.call(self._engine.stop)

    def _handle(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            answer.update(_DO[request["do"]](self, request))
            answer["ok"] = True
        except Exception as error:  # every failure is the agent's to know
            _log.warning("%s failed", request["do"], exc_info=not isinstance(error, ProxyError))
            answer.update(error=f"{error}", kind=type(error).__name__)
        self._answer(answer)
        if request["do"] == "stop":
            self._engine.call(self._engine.stop)

    def _answer(self, answer: dict[str, Any]) -> None:
        with self._answers:
            try:
                self._control.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                pass  # the agent is gone; the reader notices

    def _add_rank(self, request: dict[str, Any]) -> dict[str, Any]:
        rank, pid = request["rank"], request["pid"]
        self._engine.call(self._engine.membership.place, rank, self._config.index)
        self._engine.call(self._engine.seats.root, rank, pid)
        try:
            self._scanner.add(rank, pid)
        except FileNotFoundError:
            raise ProxyError(f"rank {rank}: there is no process {pid}") from None
        self._within(lambda: None)
        return {}

    def _connect(self, request: dict[str, Any]) -> dict[str, Any]:
        peers = [
            Peer(p["index"], p["host"], p["port"], tuple(p["ranks"]), p["leader"]) for p in request["peers"]
        ]
        others = [peer for peer in peers if peer.index != self._config.index]
        self._within(lambda: self._engine.membership.ended.update(request["ended"]))
        self._within(lambda: self._engine.frames.expect(peers, self._config.index))
        self._peers.want(others)
        wanted = {peer.index for peer in others}
        until_s = time.monotonic() + request["deadline_s"]
        while missing := wanted - set(self._within(lambda: list(self._engine.wires.links))):
            if time.monotonic() > until_s:
                raise ProxyError(f"no connection to the proxies of nodes {sorted(missing)}")
            time.sleep(0.005)
        return {}

    def _drain(self, request: dict[str, Any]) -> dict[str, Any]:
        started_s = time.monotonic()
        engine, arrived = self._engine, threading.Event()
        engine.frames.on_marker = arrived.set

        def begin() -> list[int]:
            engine.settle()
            engine.wires.say_markers(list(engine.frames.peers))
            return list(engine.frames.peers)

        nodes = set(self._within(begin))
        until_s, seen_s = started_s + request["deadline_s"], started_s
        while missing := nodes - self._within(lambda: set(engine.wires.marked)):
            now_s = time.monotonic()
            if missing <= self._within(lambda: set(engine.wires.links)):
                seen_s = now_s
            if now_s > min(until_s, seen_s + _GONE_S):
                self._undrain(request)
                raise DrainTimeout(
                    f"no marker from the proxies of nodes {sorted(missing)}: the cut was given up"
                )
            arrived.wait(_POLL_S)
            arrived.clear()
        drained = to_json(self._within(lambda: _cut(engine, started_s)))
        return {**drained, **self._measure({"last": True})}

    def _undrain(self, request: dict[str, Any]) -> dict[str, Any]:
        engine = self._engine

        def resume() -> None:
            engine.seats.begin()
            engine.wires.unmute()
            for node in list(engine.frames.peers):
                engine.frames.announce(node)
            engine.thaw()

        self._within(resume)
        return {}

    def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        return to_json(self._within(lambda: status(self._engine)))

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self._scanner.stop()
        self._within(self._engine.seats.stand_down)
        return self._measure({"last": True})

    def _measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the ranks have done; the kernel is asked beside the engine. ``last``: nothing will happen
        after it under this proxy, or not for a while."""
        seen_here = self._within(lambda: seen(self._engine))
        return {"usage": to_lines(self._meters.read(seen_here), request.get("last", False))}

    def _within(self, fn: Callable[[], T]) -> T:
        """Call ``fn`` in the engine's thread."""
        done, results, errors = threading.Event(), list[T](), list[Exception]()

        def run() -> None:
            try:
                results.append(fn())
            except Exception as error:
                errors.append(error)
            done.set()

        self._engine.call(run)
        done.wait()
        if errors:
            raise errors[0]
        return results[0]


def _cut(engine: Engine, started_s: float) -> Drained:
    engine.seats.stand_down()
    engine.frozen = True
    store = engine.requests.store
    punched = sum(box.punch() for box in engine.boxes)
    content = None if store is None else store.content()
    return Drained(content, pending(engine), punched, time.monotonic() - started_s)


_DO: dict[str, Callable[[Proxy, dict[str, Any]], dict[str, Any]]] = {
    "add_rank": Proxy._add_rank,  # pyright: ignore[reportPrivateUsage]
    "connect": Proxy._connect,  # pyright: ignore[reportPrivateUsage]
    "drain": Proxy._drain,  # pyright: ignore[reportPrivateUsage]
    "undrain": Proxy._undrain,  # pyright: ignore[reportPrivateUsage]
    "measure": Proxy._measure,  # pyright: ignore[reportPrivateUsage]
    "status": Proxy._status,  # pyright: ignore[reportPrivateUsage]
    "stop": Proxy._stop,  # pyright: ignore[reportPrivateUsage]
}
