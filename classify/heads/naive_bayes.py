"""Gaussian naive Bayes, which takes the columns as independent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import plain
from featurecache.classify.heads.shared.learned import FITTED, Array, Learned
from featurecache.classify.heads.shared.moments import MomentsHead
from featurecache.classify.heads.shared.parameters import POSITIVE, Allowed, Range
from featurecache.classify.solvers.class_moments import Moments

# Rows in float64 at a time: 1024 x 1280 is 10 MB.
BLOCK = 1024


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

    allowed: ClassVar[Allowed] = {
        "smoothing": Range("more than 0, for instance 0.01", above=0.0),
        "temperature": POSITIVE,
    }
    learned: ClassVar[Learned] = {
        **FITTED,
        "mean_": Array("D"),
        "squares_": Array("C", "D"),
        "coef_": Array("C", "D"),
        "intercept_": Array("C"),
    }
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
        largest = float(moments.total().max())
        variance = moments.variances + self.smoothing * (largest if largest > 0 else 1.0)
        self.mean_ = moments.mean()
        means = moments.means - self.mean_
        self.squares_, self.coef_ = -0.5 / variance, means / variance
        spread = np.log(2.0 * np.pi * variance) + means**2 / variance
        self.intercept_ = np.log(moments.counts / moments.counts.sum()) - 0.5 * spread.sum(axis=1)
        return self

    @classmethod
    def _scores_together(cls, heads: Sequence[Self], X: FloatArray, places: IntArray) -> Iterator[FloatArray]:
        squares, coef = (np.concatenate([getattr(head, name) for head in heads]) for name in ("squares_", "coef_"))
        intercept = np.concatenate([head.intercept_ for head in heads])
        scores = np.empty((len(places), len(intercept)))
        for start in range(0, len(places), BLOCK):
            rows = slice(start, start + BLOCK)
            scores[rows] = _quadratic(X[places[rows]], heads[0].mean_, squares, coef, intercept)
        yield from np.split(scores, len(heads), axis=1)

    def _scores(self, X: FloatArray) -> FloatArray:
        return np.concatenate([
            _quadratic(X[start : start + BLOCK], self.mean_, self.squares_, self.coef_, self.intercept_)
            for start in range(0, len(X), BLOCK)
        ])  # fmt: skip


def _quadratic(
    X: FloatArray, mean: FloatArray, squares: FloatArray, coef: FloatArray, intercept: FloatArray
) -> FloatArray:
    """Return squares z^2 + coef z + intercept (B, S), z = x - mean, for X (B, D), weights (S, D) and intercept (S,)."""
    Z = plain(X) - mean
    scores = Z @ coef.T + intercept
    np.square(Z, out=Z)
    return np.asarray(scores + Z @ squares.T)
