"""Where new chunks go: into packs, packs to the backend, and what is durable into index objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from midstep.env.ids import Ids
from midstep.vault.backends.base import Backend, Buffer
from midstep.vault.store import index
from midstep.vault.store.budget import Budget, Pool
from midstep.vault.store.content import ChunkId
from midstep.vault.store.index import PackTable
from midstep.vault.store.packs import Pack, pack_name

_PACKS_AN_INDEX = 32  # what a kill loses the knowledge of, at most; it is written again then


class Sink:
    """Any thread adds; a few threads write. Who adds waits while the backend is slow: memory is bounded."""

    def __init__(
        self, backend: Backend, budget: Budget, ids: Ids, indexed: Callable[[str, Sequence[PackTable]], None]
    ) -> None:
        self._backend, self._ids, self._indexed = backend, ids, indexed
        self._packs = Pool(budget.uploads + 1, lambda: Pack(budget.pack))
        self._writers = ThreadPoolExecutor(budget.uploads, "vault-packs")
        self._adding, self._writing = threading.Lock(), threading.Lock()
        self._open: Pack | None = None
        self._written: list[Future[None]] = []
        self._durable: list[PackTable] = []
        self._error: BaseException | None = None
        self.stored_bytes = self.packs = 0

    def add(self, chunk: ChunkId, kind: int, payload: Buffer, plain: int) -> None:
        """Take one chunk. Raises what went wrong with an earlier one."""
        with self._adding:
            if self._open and not self._open.fits(len(payload)):
                self._send()
            if self._error:
                raise self._error
            if not self._open:
                self._open = self._packs.take()
            self._open.add(chunk, kind, payload, plain)

    def finish(self) -> None:
        """Return when all is durable and indexed."""
        with self._adding:
            self._send()
            written, self._written = self._written, []
        for future in written:
            future.result()
        if self._error:
            raise self._error
        with self._writing:
            self._write_index()
        self._writers.shutdown()

    def fail(self, error: BaseException) -> None:
        """From here on `add` and `finish` raise this, or what came before it."""
        self._error = self._error or error

    def abandon(self) -> None:
        """Drop what was not written yet; nobody adds any more."""
        self._open = None
        self._writers.shutdown(cancel_futures=True)

    def _send(self) -> None:
        if self._open:
            self._written = [future for future in self._written if not future.done()]
            self._written.append(self._writers.submit(self._write, self._open))
            self._open = None

    def _write(self, pack: Pack) -> None:
        try:
            if not self._error:
                digest, whole, table = pack.seal(bytes.fromhex(self._ids.token()))
                self._backend.put(pack_name(digest), whole)
                with self._writing:
                    self._durable.append(PackTable(pack_name(digest), len(whole), table))
                    self.packs, self.stored_bytes = self.packs + 1, self.stored_bytes + len(whole)
                    if len(self._durable) >= _PACKS_AN_INDEX:
                        self._write_index()
        except BaseException as error:  # told to whoever adds or finishes
            self.fail(error)
        finally:
            pack.reset()
            self._packs.give(pack)

    def _write_index(self) -> None:
        if self._durable:
            name, data = index.encode(self._durable)
            self._backend.put(name, data)
            self.stored_bytes += len(data)
            self._indexed(name, self._durable)
            self._durable = []
