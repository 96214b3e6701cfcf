"""The writer of a cache: collects the vectors of its images and publishes them as shards, in its own thread.

    thread of the job      add: cast to the stored dtype, refuse what is not finite, collect; when due, hand over
    thread of the writer   build the HDF5 file, write it, fsync, rename

While one shard is being written the next is collected, but the job waits rather than hold more than `SHARD_BYTES` and
one batch of rows that are not published: for any number of images a kill loses one shard's worth at most. An error of
the writer's thread is raised in the job's, by the next `add` or at the end. Rows are dropped only after their shard is
published: after an error or an interrupt they are written, perhaps a second time, on leaving the context; a row that is
written twice counts once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.versions import installed_version
from featurecache.extract.cache.shards import ShardRecord, ShardRows
from featurecache.extract.images.decode_rules import DECODE_REVISION
from featurecache.extract.job.fixed_pictures import record_pixels
from featurecache.extract.job.plan import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.cache.spec import FeatureSpec
    from featurecache.extract.engines.protocol import Engine

# Collected rows become a shard after so many seconds, or when they are so many bytes. The bytes bound what a kill can
# lose; on a slow machine the seconds do, but for what comes while a shard is being written.
SHARD_SECONDS = 30.0
SHARD_BYTES = 64 << 20
RECORDED_LIBRARIES = ("featurecache", "torch", "torchvision", "pillow", "simplejpeg", "h5py", "numpy")

Key = tuple[bytes, str]


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass: digest and name of each image, and the vectors (n, D) in the stored dtype."""

    keys: list[Key]
    vectors: NDArray[np.floating[Any]]


class Writer:
    """Writes the rows of one cache; a context manager that publishes the remaining rows when it ends, by an error too.

    share: returns this cache's share of the elapsed time, if several caches share a pass over the images.
    n_extracted: rows published. seconds: spent on writing, by the writer's thread.
    """

    def __init__(self, plan: Plan, engine: Engine, share: Callable[[], float]) -> None:
        self.plan, self.n_extracted, self.seconds = plan, 0, 0.0
        self._engine, self._share = engine, share
        self._thread = ThreadPoolExecutor(1, "write")
        self._collected: list[Batch] = []
        self._handed_over: list[Batch] = []
        self._writing: Future[tuple[int, float]] | None = None
        self._since = time.perf_counter()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Publish the remaining rows and end the thread. Raises CacheUnwritable."""
        try:
            with contextlib.suppress(Exception):  # what could not be written is written again, with the rest
                self._settle()
            self._collected = self._handed_over + self._collected
            self._hand_over()
            self._settle()
        finally:
            self._thread.shutdown()

    def add(self, keys: list[Key], vectors: NDArray[np.float32]) -> list[tuple[Key, str]]:
        """Collect the rows (n, D) that the cache misses; return the images whose features overflow, with reasons.

        Raises CacheUnwritable if an earlier shard could not be written.
        """
        missing = [i for i, (digest, _) in enumerate(keys) if digest in self.plan.missing]
        with np.errstate(over="ignore"):
            rows = vectors[missing].astype(self.plan.spec.dtype, copy=False)
        is_finite = np.isfinite(rows).all(axis=1)
        kept = [i for i, is_good in zip(missing, is_finite, strict=True) if is_good]
        if kept:
            self._collected.append(Batch([keys[i] for i in kept], rows[is_finite]))
        self._publish_when_due()
        refused = [i for i, is_good in zip(missing, is_finite, strict=True) if not is_good]
        return [(keys[i], overflow_reason(vectors[i], self.plan.spec)) for i in refused]

    def _publish_when_due(self) -> None:
        n_bytes, n_handed_over = (
            sum(batch.vectors.nbytes for batch in each) for each in (self._collected, self._handed_over)
        )
        if self._writing is not None and (self._writing.done() or n_bytes + n_handed_over > SHARD_BYTES):
            self._settle()
        if n_bytes > SHARD_BYTES or time.perf_counter() - self._since > SHARD_SECONDS:
            self._settle()
            self._hand_over()

    def _hand_over(self) -> None:
        if not self._collected:
            return
        now = time.perf_counter()
        record = record_of(self._engine, self.plan.resolved.weights, self._share() * (now - self._since))
        # In this order, so that after an interrupt every row is in one of the two lists.
        self._handed_over = self._collected
        self._collected, self._since = [], now
        self._writing = self._thread.submit(self._write, self._handed_over, record)

    def _settle(self) -> None:
        """Wait for the shard that is being written. Raises CacheUnwritable; then its rows are written again later."""
        if self._writing is None:
            return
        wait([self._writing])
        written, self._writing = self._writing, None
        n_rows, seconds = written.result()
        self._handed_over = []
        self.n_extracted += n_rows
        self.seconds += seconds

    def _write(self, batches: list[Batch], record: ShardRecord) -> tuple[int, float]:
        """Publish one shard, in the writer's thread; return the number of its rows and the seconds that it took."""
        started = time.perf_counter()
        keys = [key for batch in batches for key in batch.keys]
        digests = np.frombuffer(b"".join(digest for digest, _ in keys), dtype=np.uint8).reshape(-1, 32)
        vectors = np.concatenate([batch.vectors for batch in batches])
        self.plan.cache.add(ShardRows(vectors, digests, [name for _, name in keys]), record)
        record_pixels(self.plan)
        return len(keys), time.perf_counter() - started


def record_of(engine: Engine, weights: str, seconds: float) -> ShardRecord:
    """Return the record of a shard: the engine of its rows, the name of their weights, and the seconds they took."""
    return {
        "engine": engine.name,
        "device": engine.device,
        "batch_size": engine.batch_size,
        "weights": weights,
        "versions": {name: installed_version(name) for name in RECORDED_LIBRARIES},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 3),
        "decode_revision": DECODE_REVISION,
    }


def overflow_reason(vector: NDArray[np.float32], spec: FeatureSpec) -> str:
    """Return why a vector (D,) is not finite: overflow in the network, or in the stored dtype."""
    if np.isfinite(vector).all():
        return f"its features overflow {spec.dtype}; use --dtype float32"
    if spec.precision == "fp32":
        return "its features are not finite numbers"
    return f"its features overflow in {spec.precision}; use --precision fp32"
