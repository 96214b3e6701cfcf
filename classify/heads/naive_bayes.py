"""Gaussian naive Bayes, which takes the columns as independent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.heads.fitted.kinds import QUADRATIC_BLOCK, FittedQuadratic, quadratic
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.moments import MomentsHead
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.solvers.class_moments import Moments


class NaiveBayesHead(FittedQuadratic, MomentsHead):
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

    allowed: ClassVar[Allowed] = ALLOWED["naive_bayes"]
    learned: ClassVar[Learned] = LEARNED["naive_bayes"]

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
        for start in range(0, len(places), QUADRATIC_BLOCK):
            rows = slice(start, start + QUADRATIC_BLOCK)
            scores[rows] = quadratic(X[places[rows]], heads[0].mean_, squares, coef, intercept)
        yield from np.split(scores, len(heads), axis=1)
