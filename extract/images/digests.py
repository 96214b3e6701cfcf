"""SHA-256 digests of the images of a data set; files that have not changed cost one `stat` each."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from featurecache.base.text import printable
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.images.manifest import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

# SHA-256 runs at 1-2 GB/s a core; more threads than cores help when reading from a network disk.
N_THREADS = 8
# Files hashed between two writes of the memo: if the process is killed, at most these are hashed again.
BLOCK = 2048


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


def digest_samples(
    samples: Sequence[Sample], memo: Memo, *, on_progress: Callable[[int, int], None] | None = None
) -> Digested:
    """Return the SHA-256 of every sample's file, from the memo if its size and times have not changed.

    `on_progress(done, total)` is called while files are hashed. Files that cannot be read are returned as refusals,
    never raised.
    """
    known = memo.known_digests()
    results: list[bytes | Refusal | None] = [None] * len(samples)
    stale: list[int] = []
    for i, sample in enumerate(samples):
        remembered = known.get(_memo_path(sample.path))
        try:
            status = os.stat(sample.path)  # noqa: PTH116 (hot loop)
        except OSError as error:
            results[i] = _unreadable(sample, error)
            continue
        if not stat.S_ISREG(status.st_mode):
            results[i] = Refusal(sample.name, "", "not a regular file")
            continue
        state = FileState.of(status)
        if remembered is not None and remembered[0] == state:
            results[i] = remembered[1]
        else:
            stale.append(i)
    _hash_files(samples, stale, results, memo, on_progress)
    return _collect(samples, results, len(stale))


def _hash_files(
    samples: Sequence[Sample],
    stale: list[int],
    results: list[bytes | Refusal | None],
    memo: Memo,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    if not stale:
        return
    with ThreadPoolExecutor(N_THREADS, thread_name_prefix="digest") as pool:
        for start in range(0, len(stale), BLOCK):
            block = stale[start : start + BLOCK]
            fresh: list[tuple[bytes, FileState, bytes]] = []
            read_ns = time.time_ns()
            for i, (result, state) in zip(block, pool.map(_hash_file, [samples[i] for i in block]), strict=True):
                results[i] = result
                if state is not None and isinstance(result, bytes):
                    fresh.append((_memo_path(samples[i].path), state, result))
            memo.remember_digests(fresh, read_ns=read_ns)
            if on_progress is not None:
                on_progress(start + len(block), len(stale))


def _hash_file(sample: Sample) -> tuple[bytes | Refusal, FileState | None]:
    try:
        with open(sample.path, "rb") as file:  # noqa: PTH123 (hot loop)
            before = FileState.of(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").digest()
            after = FileState.of(os.fstat(file.fileno()))
    except OSError as error:
        return _unreadable(sample, error), None
    return digest, after if before == after else None


def _memo_path(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100 (hot loop; links are named as the user named them)


def _unreadable(sample: Sample, error: OSError) -> Refusal:
    return Refusal(sample.name, "", f"cannot be read: {error.strerror or error}")


def _collect(samples: Sequence[Sample], results: list[bytes | Refusal | None], n_hashed: int) -> Digested:
    kept = [(s, r) for s, r in zip(samples, results, strict=True) if isinstance(r, bytes)]
    digests = np.frombuffer(b"".join(digest for _, digest in kept), dtype=np.uint8).reshape(-1, 32)
    refusals = tuple(result for result in results if isinstance(result, Refusal))
    return Digested(tuple(sample for sample, _ in kept), digests, refusals, n_hashed)
