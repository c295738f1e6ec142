"""Connections to the proxies of the job's other nodes: one TCP connection a pair, framed by wire.proxy.

The node with the higher index connects. A thread for each connection reads frames and hands them to the
engine; the engine writes by itself as long as the socket takes everything, else a writer thread goes on, so a
slow peer never stops the engine and two proxies cannot wait for each other's buffers.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from midstep.wire.proxy import HEAD, HELLO, VERSION, FrameType, Head

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
Piece = bytes | memoryview
_log = logging.getLogger(__name__)
_BUFFER_BYTES = 4 << 20
_RETRY_S = 0.3
_HELLO_S = 5.0
_PIECES = 512  # below the kernel's limit for one sendmsg


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node of the job. ``leader``: its proxy keeps the store."""

    index: int
    host: str
    port: int
    ranks: tuple[int, ...]
    leader: bool = False


class Link:
    """One live connection."""

    def __init__(self, node: int, sock: socket.socket, port: int) -> None:
        self.node = node
        self.port = port  # on which the peer listens: tells one proxy of a node from the next
        self.sock = sock
        self.up = True
        self._late: queue.SimpleQueue[list[Piece] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._queued = 0
        self._guard = threading.Lock()

    def send(self, pieces: list[Piece]) -> None:
        """Write, or leave it to the writer; never waits."""
        with self._guard:
            if self._queued:
                self._queued += 1
                self._late.put(pieces)
                return
        rest = self._now(pieces)
        if not rest:
            return
        with self._guard:
            self._queued += 1
        self._late.put(rest)
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="proxy-writer", daemon=True)
            self._writer.start()

    def close(self) -> None:
        """End the connection; its reader notices."""
        self.up = False
        self._late.put(None)
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _now(self, pieces: list[Piece]) -> list[Piece]:
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        while pieces:
            try:
                sent = self.sock.sendmsg(pieces[:_PIECES], (), flags)
            except BlockingIOError:
                return pieces
            except OSError:
                return []  # the reader notices; what was lost is announced to the next connection
            pieces = _rest(pieces, sent)
        return []

    def _write(self) -> None:
        while (pieces := self._late.get()) is not None:
            while pieces and self.up:
                try:
                    sent = self.sock.sendmsg(pieces[:_PIECES], (), socket.MSG_NOSIGNAL)
                except OSError:
                    break
                pieces = _rest(pieces, sent)
            with self._guard:
                self._queued -= 1


class Peers:
    """All connections of one proxy. ``deliver(link, head, data)`` and ``changed(link)`` are called by reader
    threads."""

    def __init__(
        self,
        job_id: str,
        epoch: int,
        index: int,
        host: str,
        deliver: Callable[[Link, Head, Bytes], None],
        changed: Callable[[Link], None],
    ) -> None:
        self._job_id, self._epoch, self._index = job_id, epoch, index
        self._deliver, self._changed = deliver, changed
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._wanted: dict[int, Peer] = {}
        self._guard = threading.Lock()
        threading.Thread(target=self._accept, name="proxy-accept", daemon=True).start()

    def want(self, peers: Sequence[Peer]) -> None:
        """Who the other nodes are now."""
        with self._guard:
            before, self._wanted = self._wanted, {peer.index: peer for peer in peers}
        for peer in peers:
            if peer.index < self._index and before.get(peer.index) != peer:
                threading.Thread(target=self._dial, args=(peer,), name="proxy-dial", daemon=True).start()

    def _dial(self, peer: Peer) -> None:
        refused = ""
        while self._wanted.get(peer.index) == peer:
            try:
                sock = socket.create_connection((peer.host, peer.port), _HELLO_S)
                hello = HELLO.pack(VERSION, self._epoch, self._index, self.port) + self._job_id.encode()
                sock.sendall(Head(FrameType.HELLO, length=len(hello)).pack() + hello)
                head, data = _read(sock)
                if head.type == FrameType.WELCOME:
                    self._run(Link(peer.index, sock, peer.port))
                else:
                    text = data.tobytes().decode("utf-8", "replace")
                    if text != refused:
                        _log.warning("node %d at %s:%d refuses: %s", peer.index, peer.host, peer.port, text)
                    refused = text
                    sock.close()
            except OSError as error:
                _log.debug("node %d at %s:%d: %s", peer.index, peer.host, peer.port, error)
            time.sleep(_RETRY_S)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(sock,), name="proxy-peer", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        sock.settimeout(_HELLO_S)
        try:
            head, data = _read(sock)
            if head.type != FrameType.HELLO or head.length < HELLO.size:
                raise OSError("no hello")
            version, epoch, index, port = HELLO.unpack_from(data.tobytes(), 0)
            objection = self._objection(version, epoch, index, data[HELLO.size :].tobytes().decode())
            if objection:
                text = objection.encode()
                sock.sendall(Head(FrameType.REFUSED, length=len(text)).pack() + text)
                sock.close()
                return
            sock.sendall(Head(FrameType.WELCOME).pack())
        except (OSError, ValueError) as error:
            _log.warning("a connection was not a proxy's: %s", error)
            sock.close()
            return
        self._run(Link(index, sock, port))

    def _objection(self, version: int, epoch: int, index: int, job_id: str) -> str:
        if version != VERSION:
            return f"it speaks version {version}, this proxy version {VERSION}"
        if job_id != self._job_id:
            return f"it serves job {job_id}, this proxy job {self._job_id}"
        if epoch < self._epoch:
            return f"its epoch {epoch} is over; this is epoch {self._epoch}"
        if index <= self._index:
            return f"node {index} must not connect to node {self._index}"
        return ""

    def _run(self, link: Link) -> None:
        sock = link.sock
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self._changed(link)
        try:
            while True:
                head, data = _read(sock)
                self._deliver(link, head, data)
        except OSError as error:
            _log.info("the connection to node %d ended: %s", link.node, error)
        link.close()
        self._changed(link)
        sock.close()


def _read(sock: socket.socket) -> tuple[Head, Bytes]:
    buffer = bytearray(HEAD.size)
    _fill(sock, memoryview(buffer))
    head = Head._make(HEAD.unpack(buffer))
    data = np.empty(head.length, np.uint8)
    if head.length:
        _fill(sock, data.data)
    return head, data


def _fill(sock: socket.socket, view: memoryview) -> None:
    while len(view):
        got = sock.recv_into(view, len(view), socket.MSG_WAITALL)
        if not got:
            raise OSError("closed by the other side")
        view = view[got:]


def _rest(pieces: list[Piece], sent: int) -> list[Piece]:
    for k, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[k + 1 :]]
        sent -= len(piece)
    return []
