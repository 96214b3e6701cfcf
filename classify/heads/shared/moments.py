"""Heads that learn from the counts, means and variances of classes only."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.heads.shared.base import ScoredHead
from featurecache.classify.heads.shared.trials import Trial, judge_scores
from featurecache.classify.heads.shared.validation import begin_grid, factors_among, row_weights
from featurecache.classify.solvers.class_moments import Moments, class_moments

# Scores and weights of the settings that are evaluated on held-out rows together, in bytes.
TOGETHER_BYTES = 64 * 2**20


class MomentsHead(ScoredHead):
    """Base of these heads: one pass over the rows serves every setting and every round."""

    common: ClassVar[tuple[str, ...]] = ("class_weight",)
    class_weight: str | Mapping[Any, float] | None

    @abstractmethod
    def _learn(self, moments: Moments, like: FloatArray) -> Self:
        """Learn from the moments of all classes, each of which has rows; arrays of the dtype of `like` where it can."""

    @classmethod
    @abstractmethod
    def _scores_together(cls, heads: Sequence[Self], X: FloatArray, places: IntArray) -> Iterator[FloatArray]:
        """Yield the scores (M, C) of every head, learned from the same rows, for the rows at some places (M,)."""

    def _solve(
        self, heads: Sequence[Self], X: FloatArray, codes: IntArray, sample_weight: FloatArray | None
    ) -> Iterator[Self]:
        weights = row_weights(self.class_weight, self.classes_, codes, sample_weight)
        moments = class_moments(X, codes, len(self.classes_), weights)[0]
        for head in heads:
            yield head._learn_weighty(moments, self.classes_, X)

    @classmethod
    def try_grid(
        cls,
        heads: Sequence[Self],
        X: FloatArray,
        y: AnyArray,
        rounds: Sequence[BoolArray],
        sample_weight: FloatArray | None = None,
    ) -> Iterator[tuple[int, int, Trial]]:
        """Read the rows once for all settings and rounds, and try each: see `classify.heads.shared.trials`."""
        grid = begin_grid(heads, X, y, sample_weight)
        X, classes = grid.X, grid.classes
        for number, moments in enumerate(class_moments(X, grid.codes, len(classes), grid.weights, rounds)):
            present = grid.present(rounds[number])
            weighed = moments.weighed(factors_among(heads[0].class_weight, classes, moments.counts, present))
            held_out, labels = np.flatnonzero(rounds[number]), grid.labels(rounds[number])
            size = max(TOGETHER_BYTES // (8 * len(classes) * (len(held_out) + 2 * X.shape[1])), 1)
            for first in range(0, len(heads), size):
                some = [head._learn_weighty(weighed, classes, X) for head in heads[first : first + size]]
                for setting, scores in enumerate(cls._scores_together(some, X, held_out), start=first):
                    yield setting, number, judge_scores(heads[setting], scores, labels)

    def _learn_weighty(self, moments: Moments, classes: AnyArray, like: FloatArray) -> Self:
        """Learn the classes that have rows with a weight; raises ValueError for fewer than two."""
        weighty = moments.counts > 0
        if weighty.sum() < 2:
            raise ValueError(f"Only {weighty.sum()} class has rows with a weight: a head needs at least two classes.")
        self.classes_ = classes[weighty]
        self.converged_, self.note_ = True, ""
        return self._learn(moments.among(weighty), like)
