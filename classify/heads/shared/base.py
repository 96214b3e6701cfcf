"""Heads that give every class a score: the largest score is the prediction, softmax makes probabilities."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.softmax import softmax, two_columns
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.heads.shared.trials import Trial
from featurecache.classify.heads.shared.validation import begin_fit, begin_predict


class ScoredHead(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of heads with scores; a subclass defines how a whole grid is solved (`_solve`) and its scores.

    Probabilities are softmax(scores / temperature). Where a head has a `temperature` its scores are margins or
    distances, not log odds: at the default 1.0 the probabilities are uncalibrated; a sweep fits the temperature on val.
    """

    allowed: ClassVar[Allowed]
    common: ClassVar[tuple[str, ...]]
    learned: ClassVar[Learned]
    classes_: AnyArray
    converged_: bool
    note_: str
    # Heads whose scores are log odds already have no temperature of their own.
    temperature: float = 1.0

    def fit(self, X: FloatArray, y: AnyArray, sample_weight: FloatArray | None = None) -> Self:
        """Learn from X (N, D), labels y (N,) and weights (N,), 1 where none are given."""
        X, codes = begin_fit(self, X, y)
        next(iter(self._solve([self], X, codes, sample_weight)))
        return self

    def decision_function(self, X: FloatArray) -> FloatArray:
        """Return the scores of X (M, D): (M, C), or for two classes (M,), positive for `classes_[1]`."""
        scores = self._scores(begin_predict(self, X))
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: FloatArray) -> FloatArray:
        """Return the class probabilities (M, C) of X (M, D): softmax of the scores over the temperature."""
        return softmax(two_columns(self.decision_function(X)) / self.temperature)

    def predict(self, X: FloatArray) -> AnyArray:
        """Return the label (M,) with the largest score for each row of X (M, D)."""
        best = two_columns(self.decision_function(X)).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_both(self, X: FloatArray) -> tuple[AnyArray, FloatArray]:
        """Return what `predict` and `predict_proba` do, from scores that are computed once."""
        scores = two_columns(self.decision_function(X))
        return np.asarray(self.classes_[scores.argmax(axis=1)]), softmax(scores / self.temperature)

    @classmethod
    @abstractmethod
    def try_grid(
        cls,
        heads: Sequence[Self],
        X: FloatArray,
        y: AnyArray,
        rounds: Sequence[BoolArray],
        sample_weight: FloatArray | None = None,
    ) -> Iterator[tuple[int, int, Trial]]:
        """Fit the heads in every round, sharing computations, and yield trials: see `classify.heads.shared.trials`."""

    @abstractmethod
    def _solve(
        self, heads: Sequence[Self], X: FloatArray, codes: IntArray, sample_weight: FloatArray | None
    ) -> Iterator[Self]:
        """Fit the heads on X (N, D), class codes (N,) and sample weights (N,), yielding them in their order."""

    @abstractmethod
    def _scores(self, X: FloatArray) -> FloatArray:
        """Return the scores (M, C) of checked X (M, D)."""
