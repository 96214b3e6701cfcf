"""Decoding in processes, for machines where the threads of one would wait for its interpreter lock.

    thread of the run   part of a chunk -> a free desk of a process -> rows of the chunk's batch, in shared memory

The memory has no name in the file system, so nothing of it is left, however the processes end. A process that is ended
is replaced, its parts are decoded again, and the image that it was decoding is tried in a process of its own at the end
of the pass (trial.py). Which contents are needed is decided here, by the claims of the run.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock
from typing import Any

from featurecache.base.errors import EngineFailed, ImageRefused
from featurecache.base.progress import LOGGER
from featurecache.extract.images.sources import open_hashed
from featurecache.extract.job.claims import Claims
from featurecache.extract.job.decoding.batch import Batch, WantedKinds
from featurecache.extract.job.decoding.decoder import Decoded, Item
from featurecache.extract.job.decoding.process_ends import (
    ENDED_AGAIN,
    NO_START,
    NOT_STARTED,
    how_ended,
    replaced,
    why_none,
)
from featurecache.extract.job.decoding.worker import NONE, Order, Reply, Setup, work
from featurecache.extract.job.outdated import CHANGED
from featurecache.extract.job.plan import Group

# Processes are started by one that imports these once, so that each starts at once and shares their memory.
PRELOADED = ["torch", "featurecache.extract.job.decoding.worker"]
# Desks of a process: at one the files are read while the images of the other are decoded.
N_DESKS = 2
# So many processes that are ended, without a part that is decoded in between, are replaced.
MOST_ENDED = 8
END_SECONDS = 10.0


class _Process:
    """A process, its desks and the digest of the image that it decodes. culprit: that image, once it was ended."""

    def __init__(self, memory: Any, setup: Setup) -> None:
        context = multiprocessing.get_context("forkserver")
        pairs = [context.Pipe() for _ in range(N_DESKS)]
        self._note = context.RawArray(ctypes.c_uint8, len(NONE))
        self.process = context.Process(
            target=work, args=([theirs for _, theirs in pairs], memory, self._note, setup), daemon=True
        )
        self.process.start()
        for _, theirs in pairs:
            theirs.close()
        self.desks = [_Desk(self, ours) for ours, _ in pairs]
        self.culprit: Item | None = None

    def end(self) -> str:
        """Wait for the end of the process, and return how it ended."""
        self.process.join(END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        return how_ended(self.process.exitcode)

    def find_culprit(self) -> None:
        """Set the image that was being decoded at the end of the process, if any was."""
        noted = bytes(self._note)
        items = [item for desk in self.desks for item in desk.items] if noted != NONE else []
        found = (item for item in items if item[0] == noted)
        self.culprit = next(found, None) or next((e for e in items if _digest_of(e[1].path) == noted), None)


class _Desk:
    """A connection to a thread of a process; items: what is being decoded there."""

    def __init__(self, process: _Process, connection: Connection) -> None:
        self.process, self.connection, self.is_ready = process, connection, False
        self.items: Sequence[Item] = ()

    def ask(self, order: Order) -> Reply:
        """Return the reply to an order. Raises EOFError or OSError if the process is ended."""
        if not self.is_ready:
            self.connection.recv()
            self.is_ready = True
        self.connection.send(order)
        reply: Reply = self.connection.recv()
        return reply


class DecodeProcesses:
    """Decodes parts of chunks in n processes; a context manager, which ends them. For threads.

    size: images of a chunk. n_batches: chunks whose pixels are in memory at once. claims: as for a Decoder.
    Raises EngineFailed if there is too little shared memory, or, when it is entered, if no process can be started.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        n: int,
        size: int,
        n_batches: int,
        max_pixels: int,
        slow_s: float,
        claims: Claims | None = None,
    ) -> None:
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        self._wanted, self._claims = WantedKinds(groups), claims
        suspects = frozenset(claims.suspects if claims is not None else ())
        self._setup = Setup(self._wanted.kinds, size, n_batches, max_pixels, suspects, slow_s)
        try:
            self._memory = multiprocessing.get_context("forkserver").RawArray(ctypes.c_uint8, self._setup.n_bytes)
        except (OSError, MemoryError) as error:
            raise EngineFailed(NO_START.format(why_none(error))) from error
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(n_batches):
            self._free.put(number)
        self._rows = self._setup.rows(self._memory)
        self._desks: SimpleQueue[_Desk | None] = SimpleQueue()
        self._processes: list[_Process] = []
        self._n, self._n_ended, self._error = n, 0, ""
        self._lock = Lock()

    def stop(self) -> None:
        """End the processes, whatever they are doing; who waits for a desk gets none."""
        self._desks.put(None)
        for each in [*self._processes]:
            each.process.kill()

    def __enter__(self) -> DecodeProcesses:
        try:
            for _ in range(self._n):
                self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for each in self._processes:
            each.end()
            for desk in each.desks:
                desk.connection.close()

    def _start(self) -> None:
        """Start a process. Raises EngineFailed."""
        try:
            process = _Process(self._memory, self._setup)
        except (OSError, EOFError, AssertionError) as error:  # EOFError: the fork server is gone
            raise EngineFailed(NO_START.format(why_none(error))) from error
        self._processes.append(process)
        for desk in process.desks:
            self._desks.put(desk)

    @contextmanager
    def batch(self, n: int) -> Iterator[Batch]:
        """Yield a batch of n images in shared memory, which the next one may use afterwards."""
        number = self._free.get()
        try:
            memory = dict(zip(self._wanted.kinds, self._rows[number], strict=True))
            yield Batch(n, memory=memory, number=number)
        finally:
            self._free.put(number)

    def expect(self, items: Sequence[Item]) -> None:
        """Do nothing: the processes read the files."""

    def decode(
        self, part: None, items: Sequence[Item], batch: Batch, *, start: int, check: Callable[[], None]
    ) -> list[Decoded]:
        """Decode and transform images into the rows of the batch from `start` on, as `Decoder.decode_part` does.

        Raises EngineFailed if the processes cannot start, or are ended again and again.
        """
        if not items:
            return []
        desk = self._desks.get()
        if desk is None:
            self._desks.put(None)
            raise EngineFailed(self._error)
        desk.items = items
        try:
            reply = desk.ask(self._order(items, batch, start))
        except (EOFError, OSError):
            check()
            culprit = self._replace(desk.process)
            at = next((i for i, item in enumerate(items) if item is culprit), len(items))
            parts = [(items[:at], start), (items[at + 1 :], start + at + 1)]
            before, after = (self.decode(None, some, batch, start=row, check=check) for some, row in parts)
            return [*before, *map(self._suspect, items[at : at + 1]), *after]
        desk.items, self._n_ended = (), 0
        self._desks.put(desk)
        return self._decided(items, reply)

    def _order(self, items: Sequence[Item], batch: Batch, start: int) -> Order:
        kinds, masks = self._wanted.kinds, dict[bytes, int]()
        for digest, _ in items if len(kinds) > 1 else ():
            if digest is not None:
                wanted = {kind for _, kind in self._wanted.of(digest)}
                masks[digest] = sum(1 << bit for bit, kind in enumerate(kinds) if kind in wanted)
        return Order(batch.number, start, [(digest, sample.path) for digest, sample in items], masks)

    def _replace(self, process: _Process) -> Item | None:
        """Start another process in place of one that is ended, and return the image that it was decoding."""
        with self._lock:
            if process in self._processes:
                self._processes.remove(process)
                how = process.end()
                process.find_culprit()
                self._n_ended += 1
                if (process.process.exitcode or 0) > 0 and not any(desk.is_ready for desk in process.desks):
                    self._fail(NOT_STARTED.format(how))
                elif self._n_ended > MOST_ENDED:
                    self._fail(ENDED_AGAIN.format(self._n_ended, how))
                else:
                    logging.getLogger(LOGGER).warning(replaced(how, process.culprit and process.culprit[1].name))
                    try:
                        self._start()
                    except EngineFailed as error:
                        self._fail(str(error))
            return process.culprit

    def _fail(self, error: str) -> None:
        self._error = self._error or error
        self._desks.put(None)

    def _suspect(self, item: Item) -> Decoded:
        """Return an image whose decoding ended a process, as one that is left for last."""
        known, sample = item
        if self._claims is None:
            return Decoded(known or b"", sample.name, refusal="decoding it ends the process")
        decoded = Decoded(known or b"", sample.name, is_skipped=True)
        try:
            with open_hashed(sample.path) as file:
                decoded.digest, state, read_ns = file.digest, file.state, file.read_ns
        except OSError as error:
            return Decoded(b"", sample.name, refusal=_unreadable(error), file=(sample.path, None, 0))
        self._claims.suspects.add(decoded.digest)
        if decoded.digest != known:
            decoded.file = sample.path, state, read_ns
            with suppress(OSError, ImageRefused):
                self._claims.take(decoded.digest, sample.path)  # by which the caches miss it
        return decoded

    def _decided(self, items: Sequence[Item], reply: Reply) -> list[Decoded]:
        """Return the images of a reply, those that are needed with their groups."""
        read, spent = reply.read_seconds / len(items), reply.decode_seconds / len(items)
        decoded = []
        for i, (known, sample) in enumerate(items):
            each = reply.others.get(i)
            if each is None:
                each = Decoded(known or b"", sample.name)
            each.name, each.read_seconds, each.decode_seconds = sample.name, read, spent
            if each.digest != known and each.digest:
                self._take(each, sample.path)
            if each.refusal is None and not each.is_skipped:
                each.images = self._wanted.of(each.digest)
            decoded.append(each)
        return decoded

    def _take(self, decoded: Decoded, path: str) -> None:
        """Claim the content of a file whose digest is not the known one."""
        try:
            if self._claims is None:
                raise ImageRefused(CHANGED)
            decoded.is_skipped = not self._claims.take(decoded.digest, path)
        except ImageRefused as error:
            decoded.refusal, decoded.is_lasting = str(error), False
        except OSError as error:
            decoded.refusal, decoded.is_lasting = _unreadable(error), False
        if decoded.is_skipped:
            decoded.refusal = None


def _digest_of(path: str) -> bytes:
    try:
        with open_hashed(path) as file:
            return file.digest
    except OSError:
        return b""


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"
