"""Standardisation: fitted on the rows a head is trained on, then folded into the head, so that no scaler is ever kept.

z = (x - mean) / scale        and therefore        W z + b  =  (W / scale) x + (b - W (mean / scale))

There is one rule for the scale of a column with deviation s_j, of which m is the median over the columns that vary:

    scale_j = u (s_j + m)           u such that the mean variance of z over the columns that vary is 1

(m is the s_0 of Tibshirani et al. 2002). Divided by s_j alone a pooled feature that is 0 but for a few training rows
has |z| of 1,000 and more in others. The unit u keeps what a strength C or alpha means: columns of one deviation
are standardised as ever. Networks see all columns on one scale instead (`Scaling.common`, `classify.heads.mlp`).

The rule was chosen by val accuracy in percent: with all rows of train, with 500 of them (both the mean of ridge's and
lda's best setting, 500 of three draws), and ridge's with 1 to 16 rows a class (the mean of 1, 2, 4, 8 and 16, of five
draws each, the setting chosen on these rows). Pixels are grey, and stages the ends of all stages side by side.

                   s               s + m           max(s, m / 10)  max(s, .3 m)    max(s, m)       one for all
    mnist5k
      pixels       86.5 82.4 57.0  86.8 84.8 64.8  86.4 83.0 61.9  86.1 83.5 63.1  86.7 84.7 65.3  87.2 84.5 65.7
      lite0        94.7 88.9 55.0  95.4 92.5 69.0  94.9 91.3 66.6  95.2 91.6 67.4  95.5 91.9 67.6  95.4 92.4 68.7
      lite2        94.7 89.7 54.4  95.7 92.1 67.0  95.4 90.8 65.7  95.7 91.4 66.5  95.4 91.7 66.7  95.5 92.3 66.8
      lite0 stages 97.0 93.1 61.1  97.4 95.8 74.1  97.1 95.2 72.3  97.3 95.3 73.3  97.5 95.7 73.7  97.7 96.1 74.1
      lite2 stages 97.1 94.0 61.0  98.0 96.0 72.7  97.5 95.0 71.0  97.7 95.2 71.5  98.0 96.0 72.3  97.9 96.2 73.0
    digits
      pixels       95.1 94.1 74.0  95.6 94.7 80.8  95.4 94.3 76.8  95.4 94.4 77.9  95.6 94.7 79.6  95.6 94.8 80.5
      lite0        93.1 91.0 54.9  96.0 94.6 67.9  94.2 93.4 64.6  94.7 93.5 65.9  95.8 94.0 67.8  96.0 94.2 68.6
      lite2        95.6 93.8 61.6  97.7 96.5 72.6  97.4 95.3 71.0  97.5 95.7 71.8  97.5 96.2 72.1  97.7 96.5 71.2
      lite0 stages 96.5 94.7 63.7  98.2 97.7 76.0  97.4 96.7 74.4  97.9 96.8 74.8  98.1 97.4 75.7  98.6 97.7 75.8
      lite2 stages 97.4 96.2 69.3  99.3 98.5 76.7  99.3 98.1 76.4  99.1 98.2 77.3  99.3 98.4 77.1  99.3 98.7 76.2
      mean         94.8 91.8 61.2  96.0 94.3 72.2  95.5 93.3 70.1  95.7 93.6 71.0  95.9 94.1 71.8  96.1 94.3 72.1

s + m and one scale for all columns, the root of their mean variance, are equally good in this table. Logistic
regression decided: with all rows of mnist5k lite0, digits lite0 and digits lite0 stages its val accuracy is 95.05,
96.48 and 97.89 with s + m; 94.81, 94.72 and 97.89 with one scale for all; 94.57, 95.42 and 97.54 with s. A median of
its own for every stage was nowhere better than the median of all columns, and up to 2.9 points worse.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from array_api_compat import device

from featurecache.classify.arrays.array_types import FloatArray
from featurecache.classify.arrays.as_numpy import plain
from featurecache.classify.arrays.namespaces import namespace_of

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
        """Return the standardisation with one scale for all columns: their mean variance becomes 1."""
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
    xp, there, shape = namespace_of(X), device(X), (len(weights), X.shape[1])
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
