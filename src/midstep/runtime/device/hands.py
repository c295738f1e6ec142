"""Handing descriptors to other ranks of the home: they live in PID namespaces of their own, so by a socket.

The door is open only while memory is shown: no checkpoint meets a socket.
"""

from __future__ import annotations

import array
import os
import socket
import threading
from typing import Callable, Optional

FOLDER = "/dev/shm"
PREFIX = "midstep-door-"
_ANSWER_S = 20.0


class Door:
    """Hands out a descriptor for each number that another rank names; in a thread of its own."""

    def __init__(self, word: str, export: Callable[[int], int]) -> None:
        """``word``: this rank's alone. ``export`` makes a descriptor, which is closed here."""
        self._word, self._export = word, export
        self._openings = 0
        self._listener: Optional[socket.socket] = None
        self.name = ""

    def open(self) -> None:
        """Raises OSError."""
        if self._listener is not None:
            return
        self._openings += 1
        self.name = "%s%s-%d" % (PREFIX, self._word, self._openings)
        path = os.path.join(FOLDER, self.name)
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), name="midstep-door", daemon=True).start()

    def shut(self) -> None:
        """Nobody asks any more."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        try:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        except OSError:
            pass
        listener.close()
        try:
            os.unlink(os.path.join(FOLDER, self.name))
        except OSError:
            pass

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(_ANSWER_S)
                    self._answer(connection, int(connection.recv(16)))
                except (OSError, ValueError, RuntimeError):
                    continue  # the other one says what failed

    def _answer(self, connection: socket.socket, number: int) -> None:
        fd = self._export(number)
        try:
            rights = array.array("i", [fd])
            connection.sendmsg([b"1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        finally:
            os.close(fd)


def ask(name: str, number: int) -> int:
    """A descriptor from another rank's door. Raises RuntimeError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(os.path.join(FOLDER, name))
            connection.send(b"%d" % number)
            _, rights, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4))
        except OSError as error:
            raise RuntimeError("cannot ask another rank for its device memory: %s" % error) from None
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return array.array("i", data[:4])[0]
    raise RuntimeError("another rank cannot show its device memory")
