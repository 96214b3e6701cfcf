"""Cosine similarity of rows: close pairs, nearest others, isolated rows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.solvers.nearest_rows import Neighbours, nearest_rows

# Similarities are computed for this many rows at a time: 2048 x 2048 float32 is 17 MB, and stays in a cache.
BLOCK = 2048
# So many cosines are computed by numpy, in 0.1 s: to import torch takes ten times as long.
FEW_COSINES = 10_000_000
# Close pairs that a row may have with later rows of each side: a burst of 1,000 frames must not become 500,000 pairs.
MOST_PAIRS_A_ROW = 10
# Against a sample of so many rows the order of outliers is that of all rows (Sugiyama and Borgwardt 2013).
N_REFERENCES = 5000

Progress = Callable[[int, int], None]


class Pairs(NamedTuple):
    """Pairs of rows first < second, both (P,), and their cosine (P,)."""

    first: IntArray
    second: IntArray
    similarity: FloatArray


def unit_rows(X: FloatArray) -> FloatArray:
    """Return the rows of X (N, D) as float32 of length 1; a row of zeros stays one, and is similar to nothing."""
    X = np.asarray(X, dtype=np.float32)
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(X / np.where(length > 0, length, 1.0))


def close_pairs(
    units: FloatArray, threshold: float, *, sides: IntArray | None = None, on_progress: Progress | None = None
) -> Pairs:
    """Return the pairs of rows of `units` (N, D), each of length 1, whose cosine is `threshold` or more.

    Only the upper half of the table is computed. Of the later rows a row keeps at most the ten closest of every side,
    sides (N,), so there are at most 10 N pairs for each side, and one between sides is not lost among many within one.
    """
    sides = np.zeros(len(units), dtype=np.int64) if sides is None else np.asarray(sides)
    found = [_no_pairs()]
    for start in range(0, len(units), BLOCK):
        rows, kept = units[start : start + BLOCK], _no_pairs()
        for other in range(start, len(units), BLOCK):
            similarity = rows @ units[other : other + BLOCK].T
            if other == start:
                similarity[np.tril_indices(len(rows))] = -1.0
            first, second = np.nonzero(similarity >= threshold)
            fresh = Pairs(first + start, second + other, similarity[first, second])
            kept = _closest(_joined([kept, fresh]), sides)
        found.append(kept)
        if on_progress is not None:
            on_progress(min(start + BLOCK, len(units)), len(units))
    return _joined(found)


def _no_pairs() -> Pairs:
    return Pairs(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def nearest_others(queries: FloatArray, X: FloatArray, k: int, own: IntArray) -> tuple[IntArray, FloatArray]:
    """Return the k rows of X (N, D) most similar to each query (M, D), and their cosines, both (M, k), nearest first.

    own (M,) names for each query the row of X that is the query itself and does not count, -1 where there is none.
    Raises ValueError where there are fewer than k others.
    """
    if k > len(X) - bool((own >= 0).any()):
        raise ValueError(f"{len(X)} rows have no {k} neighbours.")
    found = _nearest_rows(queries, X, min(k + 1, len(X)))
    rows, similarity = found.rows, found.similarity
    counts = rows != own[:, None]
    counts[counts.all(axis=1), -1] = False
    if rows.shape[1] == k:  # all rows there are, and none of them is a query
        return rows, similarity
    return rows[counts].reshape(-1, k), similarity[counts].reshape(-1, k)


def _nearest_rows(queries: FloatArray, X: FloatArray, k: int) -> Neighbours:
    """Return the k <= N rows of X (N, D) most similar to each query (M, D)."""
    origin = np.zeros(X.shape[1], X.dtype)
    if len(queries) * len(X) <= FEW_COSINES:
        return nearest_rows(queries, X, k, "cosine", origin, np.zeros(len(X), dtype=bool))
    from featurecache.classify.solvers.neighbours import find_neighbours

    return find_neighbours(queries, X, k, "cosine", origin)


def isolation(X: FloatArray, k: int, *, seed: int = 0, on_progress: Progress | None = None) -> FloatArray:
    """Return 1 - cosine to the k-th nearest of a sample of 5,000 rows, for each row of X (N, D): float (N,).

    The distance to the k-th neighbour ranks outliers (Ramaswamy, Rastogi and Shim 2000); neighbours from a sample do it
    as well at a fraction of the cost (Sugiyama and Borgwardt, Rapid distance-based outlier detection via sampling, NIPS
    2013). Raises ValueError where there are no k others.
    """
    references = np.sort(np.random.default_rng(seed).permutation(len(X))[:N_REFERENCES])
    place = np.full(len(X), -1)
    place[references] = np.arange(len(references))
    sample = X[references]
    distances = np.empty(len(X))
    for start in range(0, len(X), BLOCK):
        rows = slice(start, start + BLOCK)
        distances[rows] = 1.0 - nearest_others(X[rows], sample, k, place[rows])[1][:, -1]
        if on_progress is not None:
            on_progress(min(start + BLOCK, len(X)), len(X))
    return distances


def _closest(pairs: Pairs, sides: IntArray) -> Pairs:
    """Return, of each first row's pairs with the rows of each side, the ten closest."""
    side = sides[pairs.second]
    order = np.lexsort((-pairs.similarity, side, pairs.first))
    first, side = pairs.first[order], side[order]
    begins = np.flatnonzero(np.r_[True, (first[1:] != first[:-1]) | (side[1:] != side[:-1])])
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(order)])) if len(order) else order
    kept = order[rank < MOST_PAIRS_A_ROW]
    return Pairs(pairs.first[kept], pairs.second[kept], pairs.similarity[kept])
