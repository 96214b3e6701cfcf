"""A process that decodes: parts of chunks into memory that it shares with the process of the run.

It has two desks, each a connection that a thread serves: while the images of one are decoded, the files of the other
are read. It imports no HDF5 and opens no cache; which images are needed is decided by the process of the run, at whose
end, however it ends, the connections close and this process with them. Ctrl-C is for the process of the run alone.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featurecache.extract.images.augmentation import View
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.read_ahead import ReadAhead
from featurecache.extract.job.decoding.batch import Batch, Kind
from featurecache.extract.job.decoding.decoder import Decoded, Decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images that are read before they are decoded, and threads that read them where that is slow.
PART, N_READERS = 16, 16
NONE = bytes(32)


@dataclass(frozen=True)
class Setup:
    """What a process has to know: of the batches the kinds of pixels, the images of one and their number.

    suspects: contents that are not decoded, because doing so may end the process. slow_s: see ReadAhead.
    """

    kinds: Sequence[Kind]
    size: int
    n_batches: int
    max_pixels: int
    suspects: frozenset[bytes]
    slow_s: float

    @property
    def n_bytes(self) -> int:
        """The bytes of all batches."""
        return self.n_batches * self.size * sum(3 * kind.geometry.crop**2 for kind in self.kinds)

    def rows(self, memory: Any) -> list[list[NDArray[np.uint8]]]:
        """Return the rows (size, 3, S, S) in shared memory, of every batch for every kind."""
        whole, at = np.frombuffer(memory, dtype=np.uint8), 0
        found: list[list[NDArray[np.uint8]]] = []
        for _ in range(self.n_batches):
            found.append([])
            for kind in self.kinds:
                shape = (self.size, 3, kind.geometry.crop, kind.geometry.crop)
                stop = at + int(np.prod(shape))
                found[-1].append(whole[at:stop].reshape(shape))
                at = stop
        return found


class Order(NamedTuple):
    """A part to decode, into the rows from `start` on of a batch: the digest of each file, if known, and its path.

    masks: of images that are not needed in all kinds, those in which they are, as bits.
    """

    batch: int
    start: int
    files: list[tuple[bytes | None, str]]
    masks: dict[bytes, int]


class Reply(NamedTuple):
    """The result of an order: seconds of reading and decoding, and of each image with anything to say what that is."""

    read_seconds: float
    decode_seconds: float
    others: dict[int, Decoded]


class AnyKind:
    """A group that misses an image if its bit is set, or if none is known; see `extract.job.plan.Group`."""

    def __init__(self, kind: Kind, bit: int, masks: dict[bytes, int]) -> None:
        self.at_least, self.levels, self.geometry = kind.at_least, kind.levels, kind.geometry
        self.view: View | None = kind.view
        self._bit, self._masks = 1 << bit, masks

    def misses(self, digest: bytes) -> bool:
        """Whether the image is needed in this kind."""
        return bool(self._masks.get(digest, self._bit) & self._bit)


class Noted:
    """Claims that take every content but the suspects, and note what is decoded in shared memory; see `Claims`."""

    def __init__(self, note: Any, suspects: frozenset[bytes]) -> None:
        self._note, self._suspects = memoryview(note).cast("B"), suspects

    def lacking(self, digests: Sequence[bytes]) -> list[list[object]]:
        """Return nothing of each content."""
        return [[] for _ in digests]

    def take(self, digest: bytes, path: str, lacking: object = None) -> bool:
        """Whether to decode the content; whether it is needed is decided later."""
        return digest not in self._suspects

    @contextmanager
    def noting(self) -> Iterator[Callable[[bytes], None]]:
        """Yield what notes the image that is about to be decoded, while the context is active."""

        def note(digest: bytes) -> None:
            self._note[:] = digest

        try:
            yield note
        finally:
            self._note[:] = NONE


class Worker:
    """The desks of one process; images are decoded at one desk at a time."""

    def __init__(self, memory: Any, note: Any, setup: Setup) -> None:
        self._masks: dict[bytes, int] = {}
        groups: Any = [AnyKind(kind, bit, self._masks) for bit, kind in enumerate(setup.kinds)]
        claims: Any = Noted(note, setup.suspects)
        self._decoder = Decoder(groups, setup.max_pixels, claims)
        kinds, rows = self._decoder.kinds, setup.rows(memory)
        self._batches = [Batch(setup.size, memory=dict(zip(kinds, each, strict=True))) for each in rows]
        self._ahead = ReadAhead(n_threads=N_READERS, n_ahead=2 * N_READERS, slow_s=setup.slow_s)
        self._decoding = Lock()

    def serve(self, connection: Connection) -> None:
        """Decode what is ordered until the connection is closed."""
        import torch

        torch.get_num_threads()  # its first call in a thread adopts the number that any thread has set last
        torch.set_num_threads(1)
        try:
            connection.send(None)
            while True:
                connection.send(self._reply(connection.recv()))
        except (EOFError, OSError):  # the run is over
            return
        except BaseException:  # noqa: BLE001 (no desk is left without its process)
            traceback.print_exc()
            os._exit(1)

    def _reply(self, order: Order) -> Reply:
        items = [(digest, Sample(path, "")) for digest, path in order.files]
        starts = range(0, len(items), PART)
        parts = [self._ahead.expect([path for _, path in order.files[at : at + PART]]) for at in starts]
        batch, decoded = self._batches[order.batch], list[Decoded]()
        for at, part in zip(starts, parts, strict=True):
            files = self._ahead.take(part)
            with self._decoding:
                self._masks.update(order.masks)
                decoded += self._decoder.decode_part(items[at : at + PART], files, batch, start=order.start + at)
        with self._decoding:
            for needed in order.masks:
                self._masks.pop(needed, None)
        others = {}
        for i, (each, (digest, _)) in enumerate(zip(decoded, order.files, strict=True)):
            each.images = ()
            if each.digest != digest or each.refusal is not None or each.spans:
                others[i] = each
        return Reply(sum(e.read_seconds for e in decoded), sum(e.decode_seconds for e in decoded), others)


def work(connections: Sequence[Connection], memory: Any, note: Any, setup: Setup) -> None:
    """Serve the connections until they are closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(memory, note, setup)
    threads = [Thread(target=worker.serve, args=(each,), daemon=True) for each in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
