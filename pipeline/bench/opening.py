"""Seconds of opening a large cache and finding images in it: by its row index, and by reading every shard."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.text import table
from featurecache.extract.cache.row_index import ROW_INDEX_FILE
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.cache.transform_spec import TransformSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_ROWS, N_SHARDS, N_ROWS_FULL, N_SHARDS_FULL = 200_000, 20, 5_000_000, 200
N_ASKED, FEATURE_DIM = 10_000, 64
SPEC = FeatureSpec(
    backbone="bench",
    source="bench",
    weights_digest="0" * 64,
    layer="end",
    pooling="avg",
    transform=TransformSpec(32, 32, "bilinear", True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    feature_dim=FEATURE_DIM,
    decode_version=1,
    dtype="float16",
)


@dataclass(frozen=True)
class Opening:
    """Seconds of opening a cache, of finding some of its images, and of reading their vectors; medians."""

    n_rows: int
    n_shards: int
    n_asked: int
    by_index: tuple[float, float, float]
    from_shards: tuple[float, float, float]


def measure_opening(
    root: Path, n_rows: int, n_shards: int, rounds: int, say: Callable[[str], None] = lambda _: None
) -> Opening:
    """Write a cache of so many rows below `root`, and open it in both ways in turn."""
    say(f"making a cache of {n_rows:,} rows in {n_shards:,} shards")
    asked = _write_cache(root, n_rows, n_shards)
    seconds: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for number in range(1, rounds + 1):
        say(f"opening it, round {number} of {rounds}")
        for from_shards, found in seconds.items():
            found.append(_seconds(root, asked, from_shards=from_shards))
    return Opening(n_rows, n_shards, len(asked), _medians(seconds[False]), _medians(seconds[True]))


def _medians(seconds: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    opening, finding, reading = np.median(seconds, axis=0).round(4).tolist()
    return opening, finding, reading


def _write_cache(root: Path, n_rows: int, n_shards: int) -> NDArray[np.uint8]:
    """Write a cache with its row index, and return the digests of some of its rows."""
    rng = np.random.default_rng(0)
    cache = FeatureCache(root, SPEC)
    n_each = -(-n_rows // n_shards)
    asked = []
    for start in range(0, n_rows, n_each):
        n = min(n_each, n_rows - start)
        digests = rng.integers(0, 256, (n, 32), dtype=np.uint8)
        vectors = rng.standard_normal((n, FEATURE_DIM), dtype=np.float32)
        cache.add(ShardRows(vectors, digests, [f"{start + i}.png" for i in range(n)]), {"engine": "bench"})
        asked.append(digests[rng.permutation(n)[: -(-N_ASKED // n_shards)]])
    cache.refresh()
    cache.write_index()
    return rng.permutation(np.concatenate(asked))[:N_ASKED]


def _seconds(root: Path, asked: NDArray[np.uint8], *, from_shards: bool) -> tuple[float, float, float]:
    times = [time.perf_counter()]
    cache = FeatureCache(root, SPEC, from_shards=from_shards)
    times.append(time.perf_counter())
    assert not cache.missing(asked).any()
    times.append(time.perf_counter())
    cache.lookup(asked)
    times.append(time.perf_counter())
    opening, finding, reading = np.diff(times).tolist()
    return opening, finding, reading


def text_of_opening(found: Opening) -> str:
    """The table: a row for each way."""
    ways = ((ROW_INDEX_FILE, found.by_index), ("every shard", found.from_shards))
    rows = [
        (f"{found.n_rows:,}", f"{found.n_shards:,}", name, f"{found.n_asked:,}", *(f"{each:.3f}" for each in seconds))
        for name, seconds in ways
    ]
    headers = ("rows", "shards", "opened by", "images", "open s", "find s", "read s")
    return table(rows, headers, right=(0, 1, 3, 4, 5, 6))
