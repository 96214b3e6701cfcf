"""The nearest rows of queries, by numpy alone; `neighbours` has a search by torch that folds share.

    e_ij = (x_i - m)(x_j - m) - |x_i - m|^2 / 2 - |x_j - m|^2 / 2  =  -|x_i - x_j|^2 / 2
    cos_ij = (e_ij + |x_i|^2 / 2 + |x_j|^2 / 2) / (|x_i| |x_j|)

for any origin m. Of equally near rows the first are taken.
"""

from dataclasses import dataclass

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import working, working_dtype

DISTANCES = ("cosine", "euclidean")
# Rows of X whose lengths are taken at a time: 4096 x 1280 float32 is 21 MB.
BLOCK = 4096
# Queries, and rows of X, that are compared at a time: 67 MB of float32.
QUERIES, OTHERS = 1024, 16384


@dataclass(frozen=True)
class Neighbours:
    """Numbers (M, k) of the nearest rows of M queries, nearest first, and similarity: cosine or -distance^2 / 2."""

    rows: IntArray
    similarity: FloatArray


def zero_rows(X: FloatArray) -> BoolArray:
    """Return which rows of X (N, D) have length 0, (N,): their cosine to another is not defined."""
    found = np.empty(len(X), dtype=bool)
    for start in range(0, len(X), BLOCK):
        found[start : start + BLOCK] = _squares(working(X[start : start + BLOCK])) == 0.0
    return found


def nearest_rows(
    queries: FloatArray, X: FloatArray, k: int, metric: str, origin: FloatArray, absent: BoolArray
) -> Neighbours:
    """Return the k nearest rows of X (N, D), or all N, for each of the queries (M, D).

    absent (N,): rows that are never neighbours. Where fewer than k others are left, the similarity is -inf.
    """
    k = min(k, len(X))
    rows = np.empty((len(queries), k), dtype=np.int64)
    similarity = np.empty((len(queries), k), dtype=working_dtype(X))
    for start in range(0, len(queries), QUERIES):
        some = slice(start, start + QUERIES)
        ours = working(queries[some])
        found = Neighbours(np.empty((len(ours), 0), dtype=np.int64), np.empty((len(ours), 0), dtype=similarity.dtype))
        for first in range(0, len(X), OTHERS):
            there = slice(first, first + OTHERS)
            near = _similarities(ours, X[there], metric, origin.astype(similarity.dtype))
            near[:, absent[there]] = -np.inf
            found = _first_best(found, first, near, k)
        rows[some], similarity[some] = found.rows, found.similarity
    return Neighbours(rows, similarity)


def _similarities(queries: FloatArray, X: FloatArray, metric: str, origin: FloatArray) -> FloatArray:
    """Return the similarity (B, N) of queries (B, D) to all rows of X (N, D)."""
    ours = queries - origin
    half, raw = _squares(ours) / 2, _squares(queries) / 2
    near = np.empty((len(queries), len(X)), dtype=origin.dtype)
    for start in range(0, len(X), BLOCK):
        block = working(X[start : start + BLOCK])
        centred = block - origin
        part = ours @ centred.T - half[:, None] - _squares(centred) / 2
        if metric == "cosine":
            others = _squares(block) / 2
            part = (part + raw[:, None] + others) * _inverse(raw)[:, None] * _inverse(others)
        near[:, start : start + BLOCK] = part
    return near


def _first_best(before: Neighbours, first: int, near: FloatArray, k: int) -> Neighbours:
    """Return the k best of those before and of the rows from `first` on, near (B, n), or all; of equals the first."""
    near = np.concatenate([before.similarity, near], axis=1) if before.rows.size else near
    n_before = before.rows.shape[1]
    k = min(k, near.shape[1])
    places = np.stack([_largest(each, k) for each in near])
    rows = places + (first - n_before)
    if n_before:
        rows = np.where(places < n_before, np.take_along_axis(before.rows, places.clip(max=n_before - 1), axis=1), rows)
    return Neighbours(rows, np.take_along_axis(near, places, axis=1))


def _largest(near: FloatArray, k: int) -> IntArray:
    """Return the numbers (k,) of the largest of near (n,), the largest first, and the first of equal ones."""
    least = np.partition(near, len(near) - k)[len(near) - k]
    wanted = np.flatnonzero(near >= least)
    return np.asarray(wanted[np.argsort(-near[wanted], kind="stable")[:k]])


def _squares(rows: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i", rows, rows))


def _inverse(half: FloatArray) -> FloatArray:
    """Return 1 / |x| for |x|^2 / 2 (B,); 0 for a row of zeros."""
    length = np.sqrt(2 * half)
    return np.asarray(np.divide(1.0, length, out=np.zeros_like(length), where=length > 0))
