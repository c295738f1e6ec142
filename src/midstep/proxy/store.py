"""The job's rendezvous store, kept by the leader's proxy in a small append-only file.

The file holds records (size, checksum, bytes): first the content, then every changing request as it was
asked; replaying them gives the content again. A request is carried out once: its reply is kept until its
asker says (with a later request) that it has it. A killed proxy loses nothing that it has answered; a torn
last record is dropped.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from midstep.mailbox.requests import Ask, pack, unpack

_RECORD = struct.Struct("=II")
_ASKER = struct.Struct("=QQQ")  # mailbox, stamp, lowest outstanding stamp
REPLIES = "\x00replies"  # the key under which a snapshot keeps the replies
_CHANGES = (Ask.SET, Ask.ADD, Ask.COMPARE_SET, Ask.DELETE, Ask.APPEND)
Asker = tuple[int, int]  # mailbox, stamp


@dataclass(slots=True)
class Waiting:
    """A request that waits for keys."""

    ask: int
    keys: list[bytes]


class Store:
    """Keys and values. ``ask`` answers at once or later through ``settled``."""

    def __init__(self, path: str, content: Mapping[str, bytes]) -> None:
        self._path = path
        self._values: dict[bytes, bytes] = {}
        self._replies: dict[int, dict[int, bytes]] = {}
        self._waiting: dict[Asker, Waiting] = {}
        self.settled: list[tuple[Asker, bytes]] = []  # waits that a change has ended; the caller takes them
        if content:
            self._load(content)
        elif os.path.exists(path):
            self._replay()
        self._file = self._rewrite()

    def ask(self, uid: int, stamp: int, lowest: int, request: bytes) -> bytes | None:
        """The reply, or None when the request waits; raises ValueError for one that makes no sense."""
        number, parts = unpack(request)
        ask = Ask(number)
        if ask not in _CHANGES:
            return self._read((uid, stamp), ask, parts)
        known = self._replies.get(uid, {}).get(stamp)
        if known is not None:
            return known
        reply = self._change(uid, stamp, lowest, ask, parts)
        self._append(self._file, b"q" + _ASKER.pack(uid, stamp, lowest) + request)
        self._settle()
        return reply

    def cancel(self, uid: int, stamp: int) -> None:
        """The asker does not wait any more."""
        self._waiting.pop((uid, stamp), None)

    def content(self) -> dict[str, bytes]:
        """Everything, as a snapshot keeps it."""
        replies = [
            [uid, stamp, reply.decode("latin-1")]
            for uid, known in self._replies.items()
            for stamp, reply in known.items()
        ]
        values = {key.decode("utf-8", "surrogateescape"): value for key, value in self._values.items()}
        values[REPLIES] = json.dumps(replies).encode()
        return values

    def close(self) -> None:
        os.close(self._file)

    def _read(self, asker: Asker, ask: Ask, parts: list[bytes]) -> bytes | None:
        values = self._values
        if ask == Ask.CHECK:
            return b"1" if all(key in values for key in parts) else b"0"
        if ask == Ask.COUNT:
            return b"%d" % sum(1 for key in values if key.startswith(parts[0]))
        if all(key in values for key in parts):
            return values[parts[0]] if ask == Ask.GET else b""
        self._waiting[asker] = Waiting(ask, parts)
        return None

    def _change(self, uid: int, stamp: int, lowest: int, ask: Ask, parts: list[bytes]) -> bytes:
        reply = self._apply(ask, parts)
        known = self._replies.setdefault(uid, {})
        for old in [old for old in known if old < lowest]:
            del known[old]
        known[stamp] = reply
        return reply

    def _apply(self, ask: Ask, parts: list[bytes]) -> bytes:
        values, key = self._values, parts[0]
        match ask:
            case Ask.SET:
                values[key] = parts[1]
            case Ask.ADD:
                values[key] = b"%d" % (int(values.get(key, b"0") or b"0") + int(parts[1]))
                return values[key]
            case Ask.APPEND:
                values[key] = values.get(key, b"") + parts[1]
            case Ask.DELETE:
                return b"0" if values.pop(key, None) is None else b"1"
            case _:  # COMPARE_SET, as torch's TCPStore does it
                expected, desired = parts[1], parts[2]
                now = values.get(key)
                if now == expected or (now is None and not expected):
                    values[key] = desired
                    return desired
                return expected if now is None else now
        return b""

    def _settle(self) -> None:
        for asker, waiting in list(self._waiting.items()):
            if all(key in self._values for key in waiting.keys):
                del self._waiting[asker]
                reply = self._values[waiting.keys[0]] if waiting.ask == Ask.GET else b""
                self.settled.append((asker, reply))

    def _load(self, content: Mapping[str, bytes]) -> None:
        for key, value in content.items():
            if key != REPLIES:
                self._values[key.encode("utf-8", "surrogateescape")] = value
        for uid, stamp, reply in json.loads(content.get(REPLIES, b"[]")):
            self._replies.setdefault(uid, {})[stamp] = reply.encode("latin-1")

    def _replay(self) -> None:
        with open(self._path, "rb") as file:
            data = file.read()
        at = 0
        while at + _RECORD.size <= len(data):
            size, check = _RECORD.unpack_from(data, at)
            record = data[at + _RECORD.size : at + _RECORD.size + size]
            if len(record) != size or zlib.crc32(record) != check:
                break
            at += _RECORD.size + size
            self._replay_one(record)

    def _replay_one(self, record: bytes) -> None:
        if record[:1] == b"q":
            uid, stamp, lowest = _ASKER.unpack_from(record, 1)
            number, parts = unpack(record[1 + _ASKER.size :])
            self._change(uid, stamp, lowest, Ask(number), parts)
        elif record[:1] == b"k":
            _, (key, value) = unpack(record[1:])
            self._values[key] = value
        else:
            uid, stamp, _ = _ASKER.unpack_from(record, 1)
            self._replies.setdefault(uid, {})[stamp] = record[1 + _ASKER.size :]

    def _rewrite(self) -> int:
        temporary = self._path + ".new"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for key, value in self._values.items():
            self._append(file, b"k" + pack(0, [key, value]))
        for uid, known in self._replies.items():
            for stamp, reply in known.items():
                self._append(file, b"r" + _ASKER.pack(uid, stamp, 0) + reply)
        os.replace(temporary, self._path)
        return file

    @staticmethod
    def _append(file: int, record: bytes) -> None:
        data = _RECORD.pack(len(record), zlib.crc32(record)) + record
        while data:
            data = data[os.write(file, data) :]
