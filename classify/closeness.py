"""Which rows lie close together, and how far each row is from the others, by cosine."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.neighbours import find_neighbours

# Similarities are computed for this many rows at a time: 2048 x 2048 float32 is 17 MB, and stays in a cache.
BLOCK = 2048
# Close pairs that one row may have within one block: a burst of a thousand frames must not become a million pairs.
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


def close_pairs(units: FloatArray, threshold: float, *, on_progress: Progress | None = None) -> Pairs:
    """Return the pairs of rows of `units` (N, D), each of length 1, whose cosine is `threshold` or more.

    Only the upper half of the table is computed. A row keeps at most its ten closest of every block of 2,048.
    """
    none = np.empty(0, dtype=np.int64)
    found = [Pairs(none, none, np.empty(0, dtype=np.float32))]
    for start in range(0, len(units), BLOCK):
        rows = units[start : start + BLOCK]
        for other in range(start, len(units), BLOCK):
            similarity = rows @ units[other : other + BLOCK].T
            if other == start:
                similarity[np.tril_indices(len(rows))] = -1.0
            first, second = _largest(similarity, threshold)
            found.append(Pairs(first + start, second + other, similarity[first, second]))
        if on_progress is not None:
            on_progress(min(start + BLOCK, len(units)), len(units))
    return Pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def nearest_others(queries: FloatArray, X: FloatArray, k: int, own: IntArray) -> tuple[IntArray, FloatArray]:
    """Return the k rows of X (N, D) most similar to each query (M, D), and their cosines, both (M, k), nearest first.

    own (M,) names for each query the row of X that is the query itself and does not count, -1 where there is none.
    Raises ValueError where there are fewer than k others.
    """
    if k > len(X) - bool((own >= 0).any()):
        raise ValueError(f"{len(X)} rows have no {k} neighbours.")
    found = find_neighbours(queries, X, k + 1, "cosine", np.zeros(X.shape[1], X.dtype))
    counts = found.rows != own[:, None]
    counts[counts.all(axis=1), -1] = False
    if found.rows.shape[1] == k:  # all rows there are, and none of them is a query
        return found.rows, found.similarity
    return found.rows[counts].reshape(-1, k), found.similarity[counts].reshape(-1, k)


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


def _largest(similarity: FloatArray, threshold: float) -> tuple[IntArray, IntArray]:
    """Return rows and columns of the entries (B, B') of `threshold` or more, at most the ten largest of each row."""
    rows, columns = np.nonzero(similarity >= threshold)
    order = np.lexsort((-similarity[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < MOST_PAIRS_A_ROW
    return rows[kept], columns[kept]
