"""Standardisation: fitted on the rows a head is trained on, then folded into the head, so that no scaler is ever kept.

z = (x - mean) / scale        and therefore        W z + b  =  (W / scale) x + (b - W (mean / scale))
"""

from dataclasses import dataclass

import numpy as np

from classify.arrays import FloatArray

# A column whose standard deviation is below this part of its largest value is constant but for rounding.
CONSTANT = 10.0


@dataclass(frozen=True)
class Scaling:
    """Mean and scale of every column, both float64 (D,)."""

    mean: FloatArray
    scale: FloatArray

    def apply(self, X: FloatArray) -> FloatArray:
        """Standardise X (N, D); the result has the dtype of X."""
        return (X - self.mean.astype(X.dtype)) / self.scale.astype(X.dtype)

    def fold(self, weights: FloatArray, intercept: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Turn weights (C, D) and intercept (C,) for standardised columns into those for raw columns, in float64."""
        raw = weights.astype(np.float64) / self.scale
        return raw, intercept.astype(np.float64) - raw @ self.mean


def fit_scaling(X: FloatArray) -> Scaling:
    """Return mean and (population) standard deviation of the columns of X (N, D); constant columns get scale 1."""
    mean = X.mean(axis=0, dtype=np.float64)
    scale = X.std(axis=0, dtype=np.float64)
    rounding = CONSTANT * float(np.finfo(X.dtype).eps) * np.abs(X).max(axis=0)
    return Scaling(mean, np.where(scale > rounding, scale, 1.0))
