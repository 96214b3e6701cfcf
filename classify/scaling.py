"""Standardisation: fitted on the rows a head is trained on, then folded into the head, so that no scaler is ever kept.

z = (x - mean) / scale        and therefore        W z + b  =  (W / scale) x + (b - W (mean / scale))

There is one rule for the scale of a column with deviation s_j, of which m is the median over the columns that vary:

    scale_j = u (s_j + m)           u such that the mean variance of z over the columns that vary is 1

(m is the s_0 of Tibshirani et al. 2002). Divided by s_j alone a pooled feature that is 0 but for a few training rows
stands at |z| of 1,000 and more in others. The unit u keeps what a strength C or alpha means: columns of one deviation
are standardised as ever. Networks see all columns on one scale instead (`Scaling.common`).
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace, device

from classify.arrays import FloatArray
from classify.plain import plain

# A column whose standard deviation is below this part of its largest value is constant but for rounding.
CONSTANT = 10.0
# Rows at a time where moments are taken: 2048 x 1280 float32 is 10 MB.
BLOCK = 2048
# Every so many rows of a block are enough to know about where its mean is.
SPARSE = 16
# Squares of larger numbers, or of numbers below its inverse, come near the ends of float32.
SQUARABLE = 1e15


@dataclass(frozen=True)
class Scaling:
    """Mean and scale of every column, both float64 (D,)."""

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, mean: FloatArray, deviation: FloatArray) -> Self:
        """Return the standardisation of columns with a mean and a deviation (D,), 0 for constant columns.

        The mean variance of the columns that vary becomes 1, so that strengths mean the same whatever the floor.
        """
        scale, varying = floored(deviation), deviation > 0
        unit = np.sqrt(np.mean((deviation / scale)[varying] ** 2)) if varying.any() else 1.0
        return cls(mean, scale * unit)

    @classmethod
    def common(cls, mean: FloatArray, deviation: FloatArray) -> Self:
        """Return the one with the same scale for all columns: the mean variance of all becomes 1."""
        scale = float(np.sqrt(np.mean(deviation**2)))
        return cls(mean, np.full_like(deviation, scale if scale > 0 else 1.0))

    def apply(self, X: FloatArray) -> FloatArray:
        """Standardise X (N, D); the result has the dtype of X."""
        return (X - self.mean.astype(X.dtype)) / self.scale.astype(X.dtype)

    def fold(self, weights: FloatArray, intercept: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Turn weights (C, D) and intercept (C,) for standardised columns into those for raw columns, in float64."""
        raw = weights.astype(np.float64) / self.scale
        return raw, intercept.astype(np.float64) - raw @ self.mean


def floored(deviation: FloatArray) -> FloatArray:
    """Return s + s_0 (D,) for deviations s (D,): s_0 is the median of those that are not 0, or 1 where all are."""
    varying = deviation[deviation > 0]
    return deviation + (np.median(varying) if len(varying) else 1.0)


def fit_scaling(X: FloatArray) -> Scaling:
    """Return the standardisation of the columns of X (N, D), all rows counted once."""
    return fit_scalings(X, np.ones((1, len(X))))[0]


def fit_scalings(X: Any, weights: FloatArray) -> list[Scaling]:
    """Return the standardisation of the columns of X (N, D) under every row of weights (R, N)."""
    mean, deviation = column_moments(X, weights)
    return [Scaling.of(m, s) for m, s in zip(mean, deviation, strict=True)]


def column_moments(X: Any, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation (R, D), float64, of the columns of X (N, D) under every row of weights (R, N).

    A constant column has deviation 0. Sums within a block are those of x - m, m about its own mean, in the dtype of the
    rows, whose digits they keep; the blocks' are put together in float64 (Chan, Golub and LeVeque 1983, equation 2.1).
    X may be a numpy array or memory map, or a torch tensor, which is worked on where it lies.
    """
    xp, there, shape = array_namespace(X), device(X), (len(weights), X.shape[1])
    dtype = xp.float64 if X.dtype == xp.float64 else xp.float32
    sums, squares = (xp.zeros(shape, dtype=xp.float64, device=there) for _ in range(2))
    largest = xp.zeros(shape[1], dtype=dtype, device=there)
    origin: Any = None
    for start in range(0, X.shape[0], BLOCK):
        block = xp.astype(xp.asarray(X[start : start + BLOCK]), dtype, copy=False)
        here = xp.maximum(xp.max(block, axis=0), -xp.min(block, axis=0))
        largest = xp.maximum(largest, here)
        if bool(xp.any((here > SQUARABLE) | ((here > 0) & (here < 1.0 / SQUARABLE)))):
            block = xp.astype(block, xp.float64)
        middle = xp.mean(block[::SPARSE], axis=0)
        own = xp.asarray(weights[:, start : start + BLOCK], dtype=block.dtype, device=there)
        block = block - middle
        first, count = xp.astype(own @ block, xp.float64), xp.sum(own, axis=1, dtype=xp.float64)[:, None]
        block *= block
        middle = xp.astype(middle, xp.float64)
        origin = middle if origin is None else origin
        away = middle - origin
        sums += first + count * away
        squares += xp.astype(own @ block, xp.float64) + (2.0 * first + count * away) * away
    total = xp.asarray(weights.sum(axis=1), dtype=xp.float64, device=there)[:, None]
    mean = sums / total
    deviation = np.sqrt(np.maximum(plain(squares / total - mean**2), 0.0))
    noise = rounding(plain(largest), float(xp.finfo(X.dtype).eps))
    return plain(mean + origin), np.where(deviation > noise, deviation, 0.0)


def rounding(largest: FloatArray, eps: float) -> FloatArray:
    """Return the deviation (D,) below which a column is constant, from max |x| (D,) and the eps of its dtype."""
    return CONSTANT * eps * largest.astype(np.float64)
