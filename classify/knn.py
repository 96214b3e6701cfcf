"""k nearest neighbours: no training at all, and one table of neighbours for every k."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from classify.arrays import AnyArray, FloatArray, IntArray
from classify.contract import begin_fit, begin_predict
from classify.trials import Trial

# Similarities are computed for this many rows at a time: 512 x 60,000 float32 is 123 MB.
BLOCK = 512


class KNNHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Votes of the k most similar training rows, by cosine (Cover and Hart 1967).

    With v_c of the k votes for class c and its share pi_c of the training rows,

        p_c = (v_c + pi_c) / (k + 1)

    one vote's worth of prior, so that no class is ever impossible and equal votes go to the more frequent class.
    """

    classes_: AnyArray

    def __init__(self, k: int = 10) -> None:
        self.k = k

    def fit(self, X: FloatArray, y: AnyArray) -> Self:
        """Keep the rows of X (N, D), brought to length 1, and their labels y (N,)."""
        X, self.codes_ = begin_fit(self, X, y)
        self.directions_ = directions(X)
        self.converged_ = True
        return self

    def predict_proba(self, X: FloatArray) -> FloatArray:
        """Return the class probabilities (M, C) of X (M, D)."""
        return self._proba(self._neighbours(begin_predict(self, X), self.k))

    def predict(self, X: FloatArray) -> AnyArray:
        """Return the most probable label (M,) for each row of X (M, D)."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    @classmethod
    def try_grid(
        cls, heads: Sequence[Self], X: FloatArray, y: AnyArray, X_val: FloatArray, y_val: AnyArray
    ) -> Iterator[Trial]:
        """Find the neighbours of X_val (M, D) in X (N, D) once, and vote with them for the k of every head."""
        widest = max(heads, key=lambda head: head.k).fit(X, y)
        neighbours = widest._neighbours(begin_predict(widest, X_val), widest.k)
        for head in heads:
            proba = widest._proba(neighbours[:, : head.k])
            yield Trial(widest.classes_, proba, widest.classes_[proba.argmax(axis=1)])

    def _neighbours(self, X: FloatArray, k: int) -> IntArray:
        """Return the class codes (M, k) of the most similar training rows, nearest first; of all rows if k > N."""
        k, queries = min(k, len(self.codes_)), directions(X)
        rows = [nearest(queries[i : i + BLOCK] @ self.directions_.T, k) for i in range(0, len(X), BLOCK)]
        return np.asarray(self.codes_[np.concatenate(rows)])

    def _proba(self, neighbours: IntArray) -> FloatArray:
        n_classes = len(self.classes_)
        prior = np.bincount(self.codes_, minlength=n_classes) / len(self.codes_)
        votes = np.stack([(neighbours == c).sum(axis=1) for c in range(n_classes)], axis=1)
        return np.asarray((votes + prior) / (neighbours.shape[1] + 1))


def directions(X: FloatArray) -> FloatArray:
    """Return the rows of X (N, D) brought to length 1; a row of zeros stays one."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(X / np.where(length > 0, length, 1.0))


def nearest(similarity: FloatArray, k: int) -> IntArray:
    """Return the columns (B, k) of the k largest entries of each row of similarity (B, N), the largest first."""
    candidates = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(similarity, candidates, axis=1), axis=1, kind="stable")
    return np.take_along_axis(candidates, order, axis=1)
