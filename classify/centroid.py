"""The nearest class mean: the least that a head can be."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.linear import LinearHead
from classify.scaling import fit_scaling


class CentroidHead(LinearHead):
    """Nearest centroid of standardised features (Rocchio 1971; Tibshirani et al. 2002 without the shrinking).

        metric="euclidean":  score_c = m_c^T z - |m_c|^2 / 2      the largest has the smallest |z - m_c|
        metric="cosine":     score_c = m_c^T z / |m_c|            the largest has the smallest angle to z

    Both are linear. The scores are distances, not log odds: see `temperature` in `ScoredHead`.
    """

    def __init__(self, metric: str = "euclidean", *, temperature: float = 1.0) -> None:
        self.metric = metric
        self.temperature = temperature

    def _solve(self, heads: Sequence[Self], X: FloatArray, codes: IntArray) -> Iterator[Self]:
        scaling = fit_scaling(X)
        means = class_means(scaling.apply(X), codes)
        for head in heads:
            yield head._learn(scaling, *head._discriminants(means), X)

    def _discriminants(self, means: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return weights (C, D) and intercept (C,) for class means (C, D)."""
        if self.metric == "euclidean":
            return means, -0.5 * (means**2).sum(axis=1)
        if self.metric == "cosine":
            length = np.linalg.norm(means, axis=1, keepdims=True)
            return means / np.where(length > 0, length, 1.0), np.zeros(len(means))
        raise ValueError(f"metric={self.metric!r} is unknown: use 'euclidean' or 'cosine'.")


def class_means(Z: FloatArray, codes: IntArray) -> FloatArray:
    """Return the mean (C, D), float64, of the rows of Z (N, D) with each class code 0..C-1."""
    return np.stack([Z[codes == c].mean(axis=0, dtype=np.float64) for c in range(int(codes.max()) + 1)])
