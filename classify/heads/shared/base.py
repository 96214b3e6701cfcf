"""Heads that give every class a score: the largest score is the prediction, softmax makes probabilities."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.heads.fitted.scored import FittedScores
from featurecache.classify.heads.shared.estimator import Classifier, Estimator
from featurecache.classify.heads.shared.trials import Trial
from featurecache.classify.heads.shared.validation import begin_fit, begin_predict


class ScoredHead(Classifier, FittedScores, Estimator, ABC):  # type: ignore[misc]
    """Base of heads with scores; a subclass defines how a whole grid is solved (`_solve`), and its scores."""

    common: ClassVar[tuple[str, ...]]
    converged_: bool
    note_: str

    def fit(self, X: FloatArray, y: AnyArray, sample_weight: FloatArray | None = None) -> Self:
        """Learn from X (N, D), labels y (N,) and weights (N,), 1 where none are given."""
        X, codes = begin_fit(self, X, y)
        next(iter(self._solve([self], X, codes, sample_weight)))
        return self

    def _checked(self, X: Any) -> FloatArray:
        return begin_predict(self, X)

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
