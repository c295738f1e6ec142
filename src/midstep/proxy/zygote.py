"""A process that has imported everything a proxy needs, and forks one when asked: importing torch takes
seconds."""

from __future__ import annotations

import array
import asyncio
import importlib
import os
import signal
import socket
import sys

from midstep.proxy.errors import ProxyError


class Zygote:
    """The agent's side."""

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket) -> None:
        self._process = process
        self._sock = sock

    @classmethod
    async def start(cls) -> Zygote:
        """Start it; returns at once, the imports go on. A proxy asked for meanwhile waits for them."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "midstep.proxy", "--zygote", str(theirs.fileno())]
        process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()])
        theirs.close()
        ours.setblocking(False)
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, control: socket.socket) -> None:
        """Fork a proxy that serves ``control``. Raises ProxyError when the zygote is gone."""
        fds = array.array("i", [control.fileno()])
        try:
            self._sock.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except OSError as error:
            raise ProxyError(f"the proxies' fork server is gone: {error}") from error

    async def stop(self) -> None:
        """End it; its proxies live on."""
        self._sock.close()
        await self._process.wait()


def fork_server(sock: socket.socket) -> None:
    """The zygote's process: until the agent's end closes."""
    for module in ("midstep.proxy.control", "torch"):
        try:
            importlib.import_module(module)
        except ImportError:
            pass  # without torch the small floats cannot be reduced, everything else can
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, fds, _, _ = socket.recv_fds(sock, 16, 1)
        if not message:
            return
        if os.fork() == 0:
            sock.close()
            _be_proxy(fds[0])
        os.close(fds[0])


def _be_proxy(fd: int) -> None:
    from midstep.proxy.control import serve

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        serve(socket.socket(fileno=fd))
    finally:
        os._exit(0)
