"""An HTTP proxy between a client and an S3 server that does what networks and stores do on bad days."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request. Fields that are not set do nothing."""

    method: str = ""  # only to requests of this method
    contains: str = ""  # only to those whose path has this
    status: int = 0  # answer this instead of asking the server
    code: str = "InternalError"
    hang: bool = False  # do not answer at all until the proxy is closed
    cut_answer_at: int = -1  # bytes of the answer's body that are let through before the connection is cut
    cut_upload_at: int = -1  # bytes of the request's body that the server gets before all is cut
    lose_answer: bool = False  # the server does it; the client never hears of it


@dataclass
class Script:
    """The faults to come, each for one request that it fits; and what was asked."""

    faults: list[Fault] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)  # names that lists do not show yet
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def next(self, method: str, path: str) -> Fault:
        with self.lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if fault.method in ("", method) and fault.contains in path:
                    self.faults.remove(fault)
                    return fault
        return Fault()


@contextmanager
def fault_proxy(server_port: int) -> Generator[tuple[int, Script]]:
    """Its port, and the script that it follows."""
    script = Script()

    class Handler(_Handler):
        play, port = script, server_port

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy.server_port, script
    finally:
        script.closing.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    play: Script
    port: int

    def _handle(self) -> None:
        fault = self.play.next(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault.hang:
            self.play.closing.wait()
            self._cut()
        elif fault.status:
            self._answer(fault.status, {}, _error(fault.code))
        elif fault.cut_upload_at >= 0:
            self._upload_torn(body[: fault.cut_upload_at], len(body))
            self._cut()
        else:
            self._pass_on(body, fault)

    def _pass_on(self, body: bytes, fault: Fault) -> None:
        status, headers, answer = self._forward(body)
        if fault.lose_answer:
            self._cut()
            return
        if "list-type=2" in self.path:
            answer = _without(answer, self.play.hidden)
        self._answer(status, headers, answer, fault.cut_answer_at)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            server.request(self.command, self.path, body=body, headers=dict(self.headers))
            answer = server.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            server.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, cut_at: int = -1) -> None:
        self.send_response(status)
        length = headers.pop("Content-Length", "") if self.command == "HEAD" else str(len(body))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut_at < 0 else body[:cut_at])
        if cut_at >= 0:
            self._cut()

    def _upload_torn(self, body: bytes, whole: int) -> None:
        """To the server it looks as if the client died in the middle of its upload."""
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            assert f"{whole}" in head
            server.sendall(f"{self.command} {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()


def _without(listing: bytes, hidden: set[str]) -> bytes:
    head, *items = listing.split(b"<Contents>")
    kept: list[bytes] = []
    for item in items:
        inside, _, rest = item.partition(b"</Contents>")
        name = inside.partition(b"<Key>")[2].partition(b"</Key>")[0].decode()
        gone = any(name.endswith(end) for end in hidden)
        kept.append(rest if gone else b"<Contents>" + item)
    return head + b"".join(kept)
