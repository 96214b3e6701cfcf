"""The base of fitted heads, and of those with scores: the largest is the prediction, softmax makes probabilities."""

from typing import Any, ClassVar

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, FloatArray
from featurecache.classify.arrays.softmax import softmax, two_columns
from featurecache.classify.heads.fitted.rows import check_rows
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.parameters import Allowed


class FittedHead:
    """Base of fitted heads; a subclass defines `predict_both`."""

    allowed: ClassVar[Allowed]
    learned: ClassVar[Learned]
    classes_: AnyArray
    n_features_in_: int

    def predict_proba(self, X: FloatArray) -> FloatArray:
        """Return the class probabilities (M, C) of X (M, D)."""
        return self.predict_both(X)[1]

    def predict(self, X: FloatArray) -> AnyArray:
        """Return the most probable label (M,) for each row of X (M, D)."""
        return self.predict_both(X)[0]

    def predict_both(self, X: FloatArray) -> tuple[AnyArray, FloatArray]:
        """Return what `predict` and `predict_proba` do, at the cost of one."""
        raise NotImplementedError

    def _checked(self, X: Any) -> FloatArray:
        """Return rows X (M, D) that the head can take. Raises ValueError for others."""
        return check_rows(X, self)


class FittedScores(FittedHead):
    """Base of fitted heads with scores; a subclass defines them.

    Probabilities are softmax(scores / temperature). Where a head has a `temperature` its scores are margins or
    distances, not log odds: at the default 1.0 the probabilities are uncalibrated; a sweep fits the temperature on val.
    """

    # Heads whose scores are log odds already have no temperature of their own.
    temperature: float = 1.0

    def decision_function(self, X: FloatArray) -> FloatArray:
        """Return the scores of X (M, D): (M, C), or for two classes (M,), positive for `classes_[1]`."""
        scores = self._scores(self._checked(X))
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

    def _scores(self, X: FloatArray) -> FloatArray:
        """Return the scores (M, C) of checked X (M, D)."""
        raise NotImplementedError
