"""The nearest rows of a few queries, by numpy alone; `neighbours` has the same search for many, and for folds.

    e_ij = (x_i - m)(x_j - m) - |x_i - m|^2 / 2 - |x_j - m|^2 / 2  =  -|x_i - x_j|^2 / 2
    cos_ij = (e_ij + |x_i|^2 / 2 + |x_j|^2 / 2) / (|x_i| |x_j|)

for any origin m. Of equally near rows the first are taken.
"""

from dataclasses import dataclass

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import working, working_dtype

DISTANCES = ("cosine", "euclidean")
# Rows of X at a time: 4096 x 1280 float32 is 21 MB.
BLOCK = 4096
# Similarities of one block of queries, in numbers: 64 MB of float32.
BLOCK_NUMBERS = 2**24


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
    size = max(1, BLOCK_NUMBERS // len(X))
    for start in range(0, len(queries), size):
        some = slice(start, start + size)
        near = _similarities(working(queries[some]), X, metric, origin.astype(similarity.dtype))
        near[:, absent] = -np.inf
        for number, each in enumerate(near, start=start):
            rows[number] = _first_best(each, k)
            similarity[number] = each[rows[number]]
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


def _first_best(near: FloatArray, k: int) -> IntArray:
    """Return the numbers (k,) of the largest of near (N,), the largest first, and the first of equal ones."""
    least = np.partition(near, len(near) - k)[len(near) - k]
    wanted = np.flatnonzero(near >= least)
    return np.asarray(wanted[np.argsort(-near[wanted], kind="stable")[:k]])


def _squares(rows: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i", rows, rows))


def _inverse(half: FloatArray) -> FloatArray:
    """Return 1 / |x| for |x|^2 / 2 (B,); 0 for a row of zeros."""
    length = np.sqrt(2 * half)
    return np.asarray(np.divide(1.0, length, out=np.zeros_like(length), where=length > 0))
