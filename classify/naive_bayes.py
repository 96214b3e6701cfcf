"""Gaussian naive Bayes: every column by itself."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from classify.arrays import FloatArray
from classify.moment_heads import MomentsHead
from classify.moments import Moments
from classify.plain import plain

# Rows in float64 at a time: 4096 x 1280 is 42 MB.
BLOCK = 4096


class NaiveBayesHead(MomentsHead):
    """Independent Gaussian columns, a mean and a variance for each class (scikit-learn's GaussianNB).

        score_c = log prior_c - 1/2 sum_j [log(2 pi v_cj) + (x_j - m_cj)^2 / v_cj]
        v_cj = var_cj + smoothing max_j var_j

    `smoothing` is a part of the largest variance of any column, added to all: without it a column that is constant
    within a class decides alone. At a large one all variances are equal, and what is left is the nearest class mean.
    The columns of features are far from independent, so that the scores count the same evidence many times over: see
    `temperature` in `ScoredHead`. Weights, of rows or of classes, count rows more than once.

    Learned: mean_ (D,), the origin; squares_ (C, D), coef_ (C, D), intercept_ (C,), with z = x - mean_ and
    score = squares_ z^2 + coef_ z + intercept_, in float64.
    """

    mean_: FloatArray
    squares_: FloatArray
    coef_: FloatArray
    intercept_: FloatArray

    def __init__(
        self,
        smoothing: float = 0.01,
        *,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.smoothing = smoothing
        self.class_weight = class_weight
        self.temperature = temperature

    def _learn(self, moments: Moments, like: FloatArray) -> Self:
        if not self.smoothing > 0:
            raise ValueError(f"smoothing={self.smoothing!r} is not possible: use more than 0, for instance 0.01.")
        largest = float(moments.total().max())
        variance = moments.variances + self.smoothing * (largest if largest > 0 else 1.0)
        self.mean_ = moments.mean()
        means = moments.means - self.mean_
        self.squares_, self.coef_ = -0.5 / variance, means / variance
        spread = np.log(2.0 * np.pi * variance) + means**2 / variance
        self.intercept_ = np.log(moments.counts / moments.counts.sum()) - 0.5 * spread.sum(axis=1)
        return self

    def _scores(self, X: FloatArray) -> FloatArray:
        return np.concatenate([self._block(X[start : start + BLOCK]) for start in range(0, len(X), BLOCK)])

    def _block(self, X: FloatArray) -> FloatArray:
        Z = plain(X) - self.mean_
        return np.asarray(Z**2 @ self.squares_.T + Z @ self.coef_.T + self.intercept_)
