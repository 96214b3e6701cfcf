"""SHA-256 digests of the images of a data set; files that have not changed cost one `stat` each."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Container, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from featurecache.base.garbage import no_garbage_search
from featurecache.base.text import printable
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.cache.names import as_names, distinct_names
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.images.file_states import StateReader, States
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.memo_paths import memo_path, memo_paths
from featurecache.extract.images.sources import NO_PATH, can_be_path, hash_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

# SHA-256 runs at 1-2 GB/s a core; more threads than cores help when reading from a network disk.
N_THREADS = 8
# Files hashed between two writes of the memo: if the process is killed, at most these are hashed again.
BLOCK = 2048
# Files that are hashed at first to find out whether anything is missing; each is read a second time if it is.
FIRST_BLOCK = 64


class RefusalDocument(TypedDict):
    """A Refusal as JSON, its texts made printable."""

    path: str
    digest: str
    reason: str


@dataclass(frozen=True)
class Refusal:
    """A refused image, with the reason. `digest` is hex, or empty if the file could not be read."""

    name: str
    digest: str
    reason: str

    def to_dict(self) -> RefusalDocument:
        """Return the entry of this image in JSON documents."""
        return {"path": printable(self.name), "digest": self.digest, "reason": printable(self.reason)}


@dataclass(frozen=True)
class Digested:
    """Samples that could be read with their digests (N, 32) uint8, and those that could not."""

    samples: tuple[Sample, ...]
    digests: NDArray[np.uint8]
    refusals: tuple[Refusal, ...]
    n_hashed: int


class DigestTable:
    """The digests of samples, as they become known: from the memo, or by reading the files.

    unread: positions of the samples whose file the memo does not know. n_hashed: files that were read. is_changed:
    whether the run has found other digests than those that `collect` returned at first.
    """

    @no_garbage_search()
    def __init__(self, samples: Sequence[Sample], memo: Memo) -> None:
        self.samples, self.unread, self.n_hashed = samples, list[int](), 0
        self.is_changed = False
        self._memo = memo
        self._with_digest = [i for i, sample in enumerate(samples) if sample.digest is not None]
        self._digests = np.zeros((len(samples), 32), dtype=np.uint8)
        self._bytes = self._digests.reshape(-1).data
        self._folders: dict[str, bytes] = {}
        self._is_known = np.zeros(len(samples), dtype=bool)
        self._refusals: dict[int, Refusal] = {}
        self._fresh: list[tuple[bytes, FileState, bytes]] = []
        self._places: dict[str, list[int]] = {}
        with StateReader() as reader, closing(self._states(reader)) as states:
            for start, (paths, found) in zip(range(0, len(samples), BLOCK), states, strict=True):
                self._look_up(start, paths, found)

    def _states(self, reader: StateReader) -> Generator[tuple[list[bytes], States], None, None]:
        """Yield path and state of every file, in blocks."""

        def read(start: int) -> tuple[list[bytes], States]:
            named = [sample.path for sample in self.samples[start : start + BLOCK]]
            try:
                return self._read_block(named, reader)
            except ValueError:
                return self._read_possible(named, reader)

        starts = range(0, len(self.samples), BLOCK)
        yield from map(read, starts)

    def _read_block(self, named: Sequence[str], reader: StateReader) -> tuple[list[bytes], States]:
        """Return path and state of some files. Raises ValueError for a path that no file can have."""
        paths = memo_paths(named, self._folders)
        # The absolute path, which is encoded already, leads to another file where a link comes before "..".
        has_links = os.pardir in "\0".join(named)
        return paths, reader.read(named) if has_links else reader.read(paths, named)

    def _read_possible(self, named: Sequence[str], reader: StateReader) -> tuple[list[bytes], States]:
        """Return the same where some paths are such that no file can have them: these have no state."""
        possible = list(map(can_be_path, named))
        others = [path if is_possible else os.devnull for path, is_possible in zip(named, possible, strict=True)]
        paths, (states, reasons) = self._read_block(others, reader)
        reasons |= {i: OSError(errno.EINVAL, NO_PATH) for i, is_possible in enumerate(possible) if not is_possible}
        return paths, (states, reasons)

    def _look_up(self, start: int, paths: Sequence[bytes], found: States) -> None:
        """Take the digests of a block of samples from the memo, whose files have not changed since."""
        states, reasons = found
        block = self._memo.known_block(paths)
        if block is not None and block[0] == states:  # nothing has changed
            self._take(slice(start, start + len(paths)), block[1])
            return
        remembered = {(row[0], row[1:4]): row[4] for row in self._memo.known_files(paths)}
        known: dict[int, bytes] = {}
        for i, (path, state) in enumerate(zip(paths, states, strict=True), start):
            if state is None:
                self._take_from_table(i, reasons[i - start])
            elif (digest := remembered.get((path, state))) is None:
                self.unread.append(i)
            else:
                known[i] = digest
        if known:
            self._take([*known], b"".join(known.values()))

    def _take(self, places: slice | list[int], digests: bytes) -> None:
        self._digests[places] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)
        self._is_known[places] = True

    def _take_from_table(self, i: int, error: OSError | None) -> None:
        """Take the digest of the sample at position i, whose file is not readable, from its table; else refuse it."""
        sample = self.samples[i]
        if error is None:
            self._refusals[i] = Refusal(sample.name, "", "not a regular file")
        elif sample.digest is None:
            self._refusals[i] = _unreadable(sample, error)
        else:
            self._set(i, sample.digest)

    def hash_unread(
        self,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        until: Callable[[NDArray[np.uint8]], bool] | None = None,
    ) -> None:
        """Read the files that the memo does not know; `on_progress(done, total)` after every block.

        until: called with the digests of every block (n, 32), and before the first with none; the rest stays unread
        when it returns True.
        """
        if not self.unread or (until is not None and until(self._digests[:0])):
            return
        unread, self.unread = self.unread, []
        starts = [0, *range(BLOCK if until is None else FIRST_BLOCK, len(unread), BLOCK)]
        with ThreadPoolExecutor(N_THREADS, thread_name_prefix="digest") as pool:
            for start, stop in zip(starts, [*starts[1:], len(unread)], strict=True):
                block = unread[start:stop]
                read_ns = time.time_ns()
                fresh: list[tuple[bytes, FileState, bytes]] = []
                hashed = pool.map(_hash_file, [self.samples[i] for i in block])
                for i, (result, state) in zip(block, hashed, strict=True):
                    self.record(i, result)
                    if state is not None and isinstance(result, bytes):
                        fresh.append((memo_path(self.samples[i].path, self._folders), state, result))
                self._memo.remember_digests(fresh, read_ns=read_ns)
                if on_progress is not None:
                    on_progress(stop, len(unread))
                known = [i for i in block if self._is_known[i]]
                if until is not None and stop < len(unread) and until(self._digests[known]):
                    self.unread = unread[stop:]
                    return

    def stand_in(self, read: Container[int], on_progress: Callable[[int, int], None]) -> None:
        """Read the unread files at positions `read`, and give every other the digest of its path instead of its own."""
        rest = [i for i in self.unread if i not in read]
        self.unread = [i for i in self.unread if i in read]
        self.hash_unread(on_progress)
        for i in rest:
            self._set(i, self.samples[i].digest or image_digest(memo_path(self.samples[i].path, self._folders)))

    def note(self, path: str, found: bytes | Refusal, *, state: FileState | None, read_ns: int) -> None:
        """Set the digest of a file that was read at `read_ns`, in place of what the memo knew of it, or its refusal."""
        if not self._places:
            for i in self.unread:
                self._places.setdefault(self.samples[i].path, []).append(i)
        places = self._places.get(path)
        if places is None:
            places = [i for i, sample in enumerate(self.samples) if sample.path == path]
            self._memo.forget([memo_path(path, self._folders)])
        for i in places:
            self.record(i, found)
        self.is_changed = True
        if isinstance(found, Refusal) or state is None or not state.is_settled(read_ns):
            return
        self._fresh.append((memo_path(path, self._folders), state, found))
        if len(self._fresh) >= BLOCK:
            self.flush()

    def flush(self) -> None:
        """Let the memo remember the files that were noted."""
        self._memo.remember_digests(self._fresh, read_ns=time.time_ns())
        self._fresh.clear()

    def record(self, i: int, result: bytes | Refusal) -> None:
        """Set the digest of the sample at position i, or why its file could not be read."""
        self.n_hashed += 1
        if isinstance(result, Refusal):
            self._refusals[i] = result
            return
        self._set(i, result)

    def _set(self, i: int, digest: bytes) -> None:
        self._bytes[32 * i : 32 * i + 32] = digest
        self._is_known[i] = True

    def _refuse_other_digests(self) -> None:
        """Refuse the samples whose file has another digest than the table says."""
        for i in self._with_digest:
            sample, digest = self.samples[i], bytes(self._digests[i])
            if self._is_known[i] and sample.digest != digest:
                self._refusals[i] = Refusal(
                    sample.name, digest.hex(), "the file has another digest than the table says"
                )
                self._is_known[i] = False

    def collect(self) -> Digested:
        """Return the samples whose digest is known, with their digests, and the refusals; both in the order given."""
        self._refuse_other_digests()
        refusals = tuple(self._refusals[i] for i in sorted(self._refusals))
        if self._is_known.all():
            return Digested(tuple(self.samples), self._digests, refusals, self.n_hashed)
        kept = np.flatnonzero(self._is_known).tolist()
        return Digested(tuple(self.samples[i] for i in kept), self._digests[kept], refusals, self.n_hashed)


def digest_samples(
    samples: Sequence[Sample], memo: Memo, *, on_progress: Callable[[int, int], None] | None = None
) -> Digested:
    """Return the SHA-256 of every sample's file, from the memo if its size and times have not changed.

    A sample whose digest is known needs no file; one whose file has another digest is refused. `on_progress(done,
    total)` is called while files are hashed. Files that cannot be read are returned as refusals, never raised.
    """
    table = DigestTable(samples, memo)
    table.hash_unread(on_progress)
    return table.collect()


def stand_in_digests(
    samples: Sequence[Sample], memo: Memo, *, read: Container[int], on_progress: Callable[[int, int], None]
) -> Digested:
    """Return the same, reading only the files at the positions `read`.

    Others that the memo does not know have a digest as no other file has it, so copies are taken for different images.
    """
    table = DigestTable(samples, memo)
    table.stand_in(read, on_progress)
    return table.collect()


def forget_others(samples: Sequence[Sample], cache_root: Path) -> None:
    """Remove what the memo of a cache folder remembers of other files than those of these samples."""
    folders: dict[str, bytes] = {}
    kept = {memo_path(sample.path, folders) for sample in samples}
    with Memo(cache_root, read_only=True) as memo:
        memo.forget([path for path in memo.paths() if path not in kept])
        memo.shrink()


def n_distinct(digests: NDArray[np.uint8]) -> int:
    """Return the number of distinct digests among (N, 32)."""
    return len(distinct_names(as_names(digests))[0])


def _hash_file(sample: Sample) -> tuple[bytes | Refusal, FileState | None]:
    try:
        return hash_sample(sample.path)
    except OSError as error:
        return _unreadable(sample, error), None


def _unreadable(sample: Sample, error: OSError) -> Refusal:
    return Refusal(sample.name, "", f"cannot be read: {error.strerror or error}")
