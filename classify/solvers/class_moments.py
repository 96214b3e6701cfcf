"""Counts, means and variances of every class, for every round of a sweep, from one pass over the rows.

Rows that the same rounds hold out form a part; sums of each part and class are taken once, and the moments of a round
are those of the sum over the parts that it does not hold out. Sums are those of x - shift, in float64: squares of
columns far from zero would lose their variance in rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import plain
from featurecache.classify.arrays.scaling import rounding

# Rows in float64 at a time: 256 x 1280 is 2.6 MB, and stays in the processor's cache from one pass to the next.
BLOCK = 256


@dataclass(frozen=True)
class Moments:
    """Weighted count (C,), mean (C, D) and variance (C, D) of each class; those of a class without rows are 0.

    `rounding` (D,): a standard deviation below this is rounding error.
    """

    counts: FloatArray
    means: FloatArray
    variances: FloatArray
    rounding: FloatArray

    def mean(self) -> FloatArray:
        """Return the mean (D,) of all rows."""
        return np.asarray(self.counts @ self.means / self.counts.sum())

    def within(self) -> FloatArray:
        """Return the mean variance (D,) of the rows around the means of their classes."""
        return self._cleaned(self.counts @ self.variances / self.counts.sum())

    def total(self) -> FloatArray:
        """Return the variance (D,) of all rows around their mean."""
        spread = self.variances + (self.means - self.mean()) ** 2
        return self._cleaned(self.counts @ spread / self.counts.sum())

    def spread(self) -> float:
        """Return the variance of all rows, summed over columns."""
        return float(self.total().sum())

    def among(self, present: BoolArray) -> "Moments":
        """Return the moments of some classes only, bool (C,)."""
        return Moments(self.counts[present], self.means[present], self.variances[present], self.rounding)

    def weighed(self, factors: FloatArray) -> "Moments":
        """Return the moments with the weights of the rows multiplied by the factor (C,) of their class."""
        return Moments(self.counts * factors, self.means, self.variances, self.rounding)

    def _cleaned(self, variance: FloatArray) -> FloatArray:
        return np.where(variance > self.rounding**2, variance, 0.0)


def class_moments(
    X: FloatArray, codes: IntArray, n_classes: int, weights: FloatArray, rounds: Sequence[BoolArray] = ()
) -> list[Moments]:
    """Return the moments of the rows that each round trains on; of all rows for no rounds.

    X (N, D), codes (N,) in 0..n_classes-1, weights (N,), rounds: bool (N,), the rows each holds out.
    """
    held_out, part = _parts(rounds or [np.zeros(len(codes), dtype=bool)])
    n_parts = held_out.shape[1]
    shift = plain(X[:BLOCK]).astype(np.float64).mean(axis=0)
    group = part * n_classes + codes
    counts, sums, squares, largest = _group_sums(X, group, n_parts * n_classes, weights, shift)
    noise = rounding(largest, float(np.finfo(plain(X[:1]).dtype).eps))
    shape = (n_parts, n_classes, -1)
    found = []
    for trained in ~held_out:
        c, s, q = (each.reshape(shape)[trained].sum(axis=0) for each in (counts, sums, squares))
        divisor = np.where(c > 0, c, 1.0)
        mean, variance = s / divisor, np.maximum(q / divisor - (s / divisor) ** 2, 0.0)
        means = np.where(c > 0, mean + shift, 0.0)
        found.append(Moments(c[:, 0], means, variance, noise))
    return found


def _parts(rounds: Sequence[BoolArray]) -> tuple[BoolArray, IntArray]:
    """Return which parts each of R rounds holds out, (R, P), and the part of every row, (N,)."""
    part, first = np.zeros(len(rounds[0]), dtype=np.int64), np.zeros(1, dtype=np.int64)
    for held_out in rounds:
        _, first, part = np.unique(2 * part + held_out, return_index=True, return_inverse=True)
    return np.stack([held_out[first] for held_out in rounds]), part


def row_moments(X: FloatArray, weights: FloatArray, rounds: Sequence[BoolArray] = ()) -> list[Moments]:
    """Return the same with all rows in one class.

    Neither this nor `weighted_mean` uses BLAS, whose threads stay awake after their work, and would be in the way of
    torch's.
    """
    return class_moments(X, np.zeros(len(weights), dtype=np.int64), 1, weights, rounds)


def weighted_mean(X: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean (D,) of X (N, D) with weights (N,), as `row_moments` has it, without the variances."""
    sums = np.zeros(X.shape[1])
    for start in range(0, len(X), BLOCK):
        rows = slice(start, start + BLOCK)
        sums += np.einsum("i,ij->j", weights[rows], plain(X[rows]).astype(np.float64))
    return np.asarray(sums / weights.sum())


def _group_sums(
    X: FloatArray, group: IntArray, n_groups: int, weights: FloatArray, shift: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the weight (G, 1) and the sums of x - shift and its square (G, D) of every group; and max |x| (D,)."""
    sums, squares = (np.zeros((n_groups, X.shape[1])) for _ in range(2))
    high, low = (np.full(X.shape[1], sign * np.inf) for sign in (-1, 1))
    memory = np.empty((min(BLOCK, len(group)), X.shape[1]))
    for start in range(0, len(group), BLOCK):
        rows = slice(start, start + BLOCK)
        raw = plain(X[rows])
        np.maximum(high, raw.max(axis=0), out=high)
        np.minimum(low, raw.min(axis=0), out=low)
        block = np.subtract(raw, shift, out=memory[: len(raw)])
        here, member = _members(group[rows], weights[rows], n_groups)
        sums[here] += member(block)
        squares[here] += member(np.square(block, out=block))
    counts = np.bincount(group, weights, minlength=n_groups).astype(np.float64)
    return counts[:, None], sums, squares, np.maximum(high, -low)


def _members(
    group: IntArray, weights: FloatArray, n_groups: int
) -> tuple[IntArray, Callable[[FloatArray], FloatArray]]:
    """Return the groups (H,) that rows (B,) are in, and what gives their weighted sums (H, D) of columns (B, D)."""
    here = np.unique(group)
    if len(here) == 1:
        return here, lambda block: np.einsum("i,ij->j", weights, block)[None]
    member = csr_matrix((weights, (group, np.arange(len(group)))), shape=(n_groups, len(group)))[here]
    return here, lambda block: np.asarray(member @ block)
