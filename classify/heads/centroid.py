"""The nearest class mean, with shrunken means."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import working_dtype
from featurecache.classify.arrays.blocks import scores_of
from featurecache.classify.arrays.scaling import Scaling, floored
from featurecache.classify.heads.fitted.kinds import FittedLinear
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.moments import MomentsHead
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.solvers.class_moments import Moments


class CentroidHead(FittedLinear, MomentsHead):
    """Nearest shrunken centroid (Tibshirani et al. 2002, equations 1 to 6); with shrink=0, nearest centroid.

        z_j  = (x_j - m_j) / (s_j + s_0)        m_j: mean of all rows; s_j: deviation within classes, s_0 their median
        d_cj = (mean of z_j in class c) / r_c,       r_c = sqrt(1 / n_c - 1 / n)                        a t statistic
        c_cj = r_c sign(d_cj) max(|d_cj| - shrink, 0)                               the shrunken centroid of class c

        metric="euclidean":  score_c = c_c^T z - |c_c|^2 / 2 + log prior_c    the largest has the smallest |z - c_c|
        metric="cosine":     score_c = c_c^T z / |c_c|                        the largest has the smallest angle to z

    Both are linear: coef_ (C, D) and intercept_ (C,) on raw features. A column in which no class differs from the mean
    by more than `shrink` drops out. The scores are distances, not log odds: see `temperature` in `ScoredHead`. Weights,
    of rows or of classes, count rows more than once; the prior is a class's share of them.
    """

    allowed: ClassVar[Allowed] = ALLOWED["centroid"]
    learned: ClassVar[Learned] = LEARNED["centroid"]

    def __init__(
        self,
        metric: str = "euclidean",
        *,
        shrink: float = 0.0,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.metric = metric
        self.shrink = shrink
        self.class_weight = class_weight
        self.temperature = temperature

    def _learn(self, moments: Moments, like: FloatArray) -> Self:
        scaling = Scaling(moments.mean(), floored(np.sqrt(moments.within())))
        centroids = self._shrunken((moments.means - scaling.mean) / scaling.scale, moments.counts)
        coef, intercept = scaling.fold(*self._discriminants(centroids, moments.counts))
        self.coef_, self.intercept_ = (each.astype(working_dtype(like)) for each in (coef, intercept))
        return self

    def _shrunken(self, means: FloatArray, counts: FloatArray) -> FloatArray:
        """Return the centroids (C, D) of standardised class means (C, D) of classes with these counts (C,)."""
        step = self.shrink * np.sqrt(np.maximum(1.0 / counts - 1.0 / counts.sum(), 0.0))[:, None]
        return np.asarray(np.sign(means) * np.maximum(np.abs(means) - step, 0.0))

    def _discriminants(self, centroids: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return weights (C, D) and intercept (C,) for centroids (C, D)."""
        if self.metric == "euclidean":
            return centroids, np.log(counts / counts.sum()) - 0.5 * (centroids**2).sum(axis=1)
        length = np.linalg.norm(centroids, axis=1, keepdims=True)
        return centroids / np.where(length > 0, length, 1.0), np.zeros(len(centroids))

    @classmethod
    def _scores_together(cls, heads: Sequence[Self], X: FloatArray, places: IntArray) -> Iterator[FloatArray]:
        coef = np.concatenate([head.coef_ for head in heads])
        scores = scores_of(X, places, coef, np.concatenate([head.intercept_ for head in heads]))
        yield from np.split(scores, len(heads), axis=1)
