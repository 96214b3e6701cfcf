"""Files read in threads before they are decoded, so that decoders do not wait for a slow disk.

Where reading is fast, whoever takes a part reads it: handing a file from thread to thread would cost more. When a few
files in a row take long, the parts are read ahead from then on.

Parts of the samples are read in the order in which they are expected: those next to be taken, up to `n_ahead`. None of
their files is begun while those that were not taken yet have more than READ_BYTES. What is not read ahead, such as a
large file, or one for which there is no memory, is left to whoever decodes it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple

from featurecache.extract.images.sources import HashedFile, read_hashed

# Twenty photographs of six megabytes.
READ_BYTES = 128 << 20
# Files in a row that show that the disk is slow: one alone may have waited for the interpreter lock.
N_SLOW = 4
# Bytes of a part that are read before any of it is decoded.
PART_BYTES = 4 << 20


class ReadFile(NamedTuple):
    """A file that was read, or why it could not be; neither where it is left to be opened. seconds: spent on it."""

    file: HashedFile | None
    error: OSError | None
    seconds: float


LEFT = ReadFile(None, None, 0.0)


class Part:
    """Samples that are read one after another, in one thread."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.files: Future[list[ReadFile]] | None = None


class ReadAhead:
    """Reads parts in threads; a context manager, which ends them.

    n_ahead: the parts that are read, or being read, and were not taken yet. slow_s: the seconds of a file from which on
    parts are read ahead; 0 to begin with that.
    """

    def __init__(self, *, n_threads: int, n_ahead: int, slow_s: float = 0.0) -> None:
        self._pool = ThreadPoolExecutor(n_threads, "read")
        self._slow_s, self._n_slow, self._is_slow = slow_s, 0, slow_s == 0
        self._n_left, self._n_bytes, self._is_over = n_ahead, 0, False
        self._waiting: deque[Part] = deque()
        self._lock = Lock()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def expect(self, paths: Sequence[str]) -> Part:
        """Return a part of the samples that is going to be taken, after those before it."""
        part = Part(paths)
        with self._lock:
            self._waiting.append(part)
            self._start()
        return part

    def take(self, part: Part) -> list[ReadFile]:
        """Return the files of a part, as soon as they are read."""
        with self._lock:
            is_slow, reading = self._is_slow, part.files
            if reading is None:
                self._waiting.remove(part)
            else:
                self._n_left += 1
            self._start()
        if reading is None:
            return [LEFT] * len(part.paths) if is_slow else self._read_now(part.paths)
        return self._taken(reading.result())

    def _taken(self, files: list[ReadFile]) -> list[ReadFile]:
        with self._lock:
            self._n_bytes -= sum(map(_n_bytes, files))
        return files

    def _read_now(self, paths: Sequence[str]) -> list[ReadFile]:
        """Read files in this thread; when it shows that this is slow, the rest of them before other parts."""
        files: list[ReadFile] = []
        n_bytes = 0
        for i, path in enumerate(paths, 1):
            files.append(read := _read(path))
            n_bytes += _n_bytes(read)
            self._n_slow = self._n_slow + 1 if read.seconds > self._slow_s else 0
            if self._n_slow >= N_SLOW and not self._is_slow:
                rest = self._pool.map(self._read_one, paths[i:])
                with self._lock:
                    self._is_slow = True
                    self._start()
                return files + self._taken([*rest])
            if n_bytes > PART_BYTES or self._is_over:
                return files + [LEFT] * (len(paths) - i)
        return files

    def _start(self) -> None:
        """Read the next of the parts, if that is done ahead, with the lock held."""
        while self._is_slow and self._waiting and self._n_left:
            part = self._waiting.popleft()
            part.files = self._pool.submit(self._read, part.paths)
            self._n_left -= 1

    def _read(self, paths: Sequence[str]) -> list[ReadFile]:
        return [self._read_one(path) for path in paths]

    def _read_one(self, path: str) -> ReadFile:
        if self._is_over or self._n_bytes > READ_BYTES:
            return LEFT
        found = _read(path)
        with self._lock:
            self._n_bytes += _n_bytes(found)
        return found


def _read(path: str) -> ReadFile:
    started = time.perf_counter()
    try:
        return ReadFile(read_hashed(path), None, time.perf_counter() - started)
    except OSError as error:
        return ReadFile(None, error.with_traceback(None), time.perf_counter() - started)
    except Exception:  # noqa: BLE001  (the decoder meets it again, and refuses this file alone)
        return LEFT


def _n_bytes(read: ReadFile) -> int:
    return len(read.file.content) if read.file is not None and isinstance(read.file.content, bytes) else 0
