"""The job's rendezvous store as torch knows it: a ``Store`` whose requests travel through the mailbox."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, List, Optional, Sequence, Union

from ..mailbox.contract import Channel, ChannelTimeout
from .rendezvous import join, lead
from .torch_types import Store, torch_error

Value = Union[str, bytes]
DEFAULT_TIMEOUT = timedelta(seconds=300)


_ALIVE: List[Any] = []
"""Every store of the process: C++ (a PrefixStore) may hold one without its Python half, which does the work.
"""


def _bytes(value: Any) -> bytes:
    """A value as C++ (a list of numbers or bytes) or Python (text or bytes) gives it."""
    return value.encode() if isinstance(value, str) else bytes(value)


class MailboxStore(Store):
    """Keys under ``scope`` of the job's store. Waiting calls raise DistStoreError when their time is over."""

    def __init__(self, channel: Channel, scope: str, timeout: timedelta = DEFAULT_TIMEOUT) -> None:
        super().__init__()
        _ALIVE.append(self)
        self._channel = channel
        self._scope = scope
        self.set_timeout(timeout)

    def _key(self, key: str) -> str:
        return f"{self._scope}/{key}"

    def _seconds(self, timeout: Optional[timedelta] = None) -> float:
        return (self.timeout if timeout is None else timeout).total_seconds()

    def set(self, key: str, value: Value) -> None:
        self._channel.store_set(self._key(key), _bytes(value))

    def get(self, key: str) -> bytes:
        timeout_s = self._seconds()
        try:
            return self._channel.store_get(self._key(key), timeout_s)
        except ChannelTimeout:
            raise _timeout([key], timeout_s) from None

    def add(self, key: str, value: int) -> int:
        return self._channel.store_add(self._key(key), int(value))

    def compare_set(self, key: str, expected: Value, desired: Value) -> bytes:
        return self._channel.store_compare_set(self._key(key), _bytes(expected), _bytes(desired))

    def wait(self, keys: Sequence[str], timeout: Optional[timedelta] = None) -> None:
        timeout_s = self._seconds(timeout)
        try:
            self._channel.store_wait([self._key(key) for key in keys], timeout_s)
        except ChannelTimeout:
            raise _timeout(keys, timeout_s) from None

    def check(self, keys: Sequence[str]) -> bool:
        return self._channel.store_check([self._key(key) for key in keys])

    def delete_key(self, key: str) -> bool:
        return self._channel.store_delete(self._key(key))

    def num_keys(self) -> int:
        return self._channel.store_num_keys(self._key(""))

    def append(self, key: str, value: Value) -> None:
        self._channel.store_append(self._key(key), _bytes(value))

    def multi_get(self, keys: Sequence[str]) -> List[bytes]:
        return [self.get(key) for key in keys]

    def multi_set(self, keys: Sequence[str], values: Sequence[Value]) -> None:
        for key, value in zip(keys, values):
            self.set(key, value)

    def has_extended_api(self) -> bool:
        return True

    def queue_push(self, key: str, value: Value) -> None:
        self.set(f"{key}/{self.add(f'{key}/tail', 1)}", value)

    def queue_pop(self, key: str, block: bool = True) -> bytes:
        """The oldest value; without ``block`` raises DistQueueEmptyError when there is none."""
        if not block and self.queue_len(key) <= 0:
            raise torch_error("QueueEmptyError")(f"queue is empty: {key}")
        place = f"{key}/{self.add(f'{key}/head', 1)}"
        value = self.get(place)
        self.delete_key(place)
        return value

    def queue_len(self, key: str) -> int:
        return self.add(f"{key}/tail", 0) - self.add(f"{key}/head", 0)

    def barrier(self, key: str, world_size: int, timeout: Optional[timedelta] = None) -> None:
        if self.add(f"{key}/count", 1) == world_size:
            self.set(f"{key}/open", b"1")
        self.wait([f"{key}/open"], timeout)

    def clone(self) -> MailboxStore:
        return MailboxStore(self._channel, self._scope, self.timeout)

    # The names under which C++ (a PrefixStore) calls us.
    compareSet = compare_set
    deleteKey = delete_key
    getNumKeys = num_keys
    multiGet = multi_get
    multiSet = multi_set
    hasExtendedApi = has_extended_api
    queuePush = queue_push
    queuePop = queue_pop
    queueLen = queue_len


def _timeout(keys: Sequence[str], timeout_s: float) -> RuntimeError:
    kind = torch_error("DistStoreError")
    return kind(f"wait timeout after {int(timeout_s * 1000)}ms, keys: {', '.join('/' + key for key in keys)}")


class TCPStore(MailboxStore):
    """Stands in for ``torch.distributed.TCPStore``: the same calls and no connection (a rank owns none).

    A host and port name a meeting point in the job's store; the master opens it anew, so keys of an earlier
    store at the same address are not seen.
    """

    def __init__(
        self,
        host_name: str,
        port: int,
        world_size: Optional[int] = None,
        is_master: bool = False,
        timeout: timedelta = DEFAULT_TIMEOUT,
        wait_for_workers: bool = True,
        multi_tenant: bool = False,
        master_listen_fd: Optional[int] = None,
        use_libuv: bool = True,
    ) -> None:
        from .channels import the_channel

        channel = the_channel()
        self._host, self._port = host_name, port or _free_port()
        place = f"{host_name}:{self._port}"
        others = world_size - 1 if world_size and world_size > 0 and wait_for_workers else None
        timeout_s = timeout.total_seconds()
        try:
            scope = (
                lead(channel, place, others, timeout_s)
                if is_master
                else join(channel, place, others, timeout_s)
            )
        except ChannelTimeout as error:
            kind = torch_error("DistNetworkError")
            raise kind(f"The store at {place} was not joined by all in {timeout_s:g} s: {error}") from None
        super().__init__(channel, scope, timeout)

    @property
    def host(self) -> str:
        return self._host

    @property
    def port(self) -> int:
        return self._port

    @property
    def libuvBackend(self) -> bool:
        return True


def _free_port() -> int:
    """A number for ``port=0``: it names the meeting point and is never listened on."""
    return 32768 + int.from_bytes(os.urandom(2), "little") % 28000
