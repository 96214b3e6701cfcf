"""k nearest neighbours, with one table of neighbours for every setting and fold."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray
from featurecache.classify.arrays.as_numpy import plain, working_dtype
from featurecache.classify.arrays.memmap import array_stored_like
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.fitted.voting import FittedNeighbours, blank_rows
from featurecache.classify.heads.shared.estimator import Classifier, Estimator
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.parameters import Allowed, equal_settings
from featurecache.classify.heads.shared.trials import Trial, judge_scores
from featurecache.classify.heads.shared.validation import (
    begin_fit,
    begin_grid,
    begin_predict,
    class_factors,
    row_weights,
    trained_classes,
)
from featurecache.classify.heads.shared.votes import Voters, elect
from featurecache.classify.solvers.class_moments import row_moments, weighted_mean
from featurecache.classify.solvers.nearest_rows import zero_rows
from featurecache.classify.solvers.neighbours import round_neighbours


class KNNHead(Classifier, FittedNeighbours, Estimator):  # type: ignore[misc]
    """Votes of the k nearest training rows (Cover and Hart 1967), by cosine or Euclidean distance.

        v_i = exp((s_i - s_1) / sharpness)      1 for the nearest, less for those less similar (Wu et al. 2018, DINO)
        p_c = (sum of v_i of class c + pi_c) / (sum of v_i + 1)

    with s the cosine, or -|x - x_i|^2 / (2 V), V the variance of the training rows, summed over columns. sharpness=None
    gives every neighbour one vote. pi_c, the share of class c, is one vote's worth of prior: no class is ever
    impossible, and equal votes go to the more frequent class. k above N means all rows. By cosine a row of zeros has no
    neighbour but other rows of zeros, which are all equally near: without any the prior alone decides.

    Neighbours are not independent, and the share of votes is not well calibrated: probabilities are
    p^(1 / temperature), normalised; a sweep fits the temperature on val.

    A row of sample weight 2 counts as two neighbours: of the k nearest rows, those vote whose weights add up to k.
    A class weight multiplies votes and prior instead.
    """

    allowed: ClassVar[Allowed] = ALLOWED["knn"]
    learned: ClassVar[Learned] = LEARNED["knn"]
    common: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        k: int = 10,
        *,
        metric: str = "cosine",
        sharpness: float | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.k = k
        self.metric = metric
        self.sharpness = sharpness
        self.class_weight = class_weight
        self.temperature = temperature

    def fit(self, X: FloatArray, y: AnyArray, sample_weight: FloatArray | None = None) -> Self:
        """Keep the rows of X (N, D), their labels y (N,) and weights (N,); rows without a weight are left out."""
        X, codes = begin_fit(self, X, y)
        X = plain(X)
        counts = row_weights(None, self.classes_, codes, sample_weight)
        total = np.bincount(codes, counts, minlength=len(self.classes_)).astype(np.float64)
        self.factors_ = class_factors(self.class_weight, self.classes_, total)
        kept = counts > 0
        self.rows_, self.codes_, self.counts_ = (
            (X, codes, counts) if kept.all() else (X[kept], codes[kept], counts[kept])
        )
        self._zeros = zero_rows(self.rows_)
        (moments,) = row_moments(self.rows_, self.counts_)
        self.origin_, self.variance_ = moments.mean(), moments.spread()
        self.converged_ = True
        return self

    def _checked(self, X: Any) -> FloatArray:
        return begin_predict(self, X)

    @classmethod
    def try_grid(
        cls,
        heads: Sequence[Self],
        X: FloatArray,
        y: AnyArray,
        rounds: Sequence[BoolArray],
        sample_weight: FloatArray | None = None,
    ) -> Iterator[tuple[int, int, Trial]]:
        """Find the neighbours of all held-out rows once, and vote with them for every setting."""
        grid = begin_grid(heads, X, y, sample_weight)
        X, codes, classes, counts = plain(grid.X), grid.codes, grid.classes, grid.weights
        origin = weighted_mean(X, counts)
        blank = {metric: blank_rows(X, metric) for metric in sorted({head.metric for head in heads})}
        absent = {metric: own | (counts == 0.0) for metric, own in blank.items()}
        tables = round_neighbours(X, rounds, max(head.k for head in heads), list(blank), origin, absent)
        needs_variance = any(head.metric == "euclidean" and head.sharpness is not None for head in heads)
        spreads = [each.spread() for each in row_moments(X, counts, rounds)] if needs_variance else [1.0] * len(rounds)
        for number, (held_out, table, variance) in enumerate(zip(rounds, tables, spreads, strict=True)):
            trained, labels = np.where(held_out, 0.0, counts), grid.labels(held_out)
            there = trained_classes(codes, trained, len(classes))
            arrays = [array_stored_like(X, (len(labels), len(classes)), working_dtype(X)) for _ in range(2)]
            for settings in _settings_but_for_k(heads):
                chosen = [heads[setting] for setting in settings]
                metric, factors = chosen[0].metric, grid.class_factors(chosen[0].class_weight, trained, held_out)
                voters = Voters(codes, trained, factors, variance, blank[metric])
                elected = elect(chosen, table[metric], voters, blank[metric][held_out], *arrays)
                near = None
                for setting, head, (best, proba) in zip(settings, chosen, elected, strict=True):
                    known = proba if there.all() else proba[:, there]
                    scores = np.log(known, out=known)  # none is zero: every class has its share of the prior
                    judged = judge_scores(head, scores, labels, classes[there], predicted=classes[best], guess=near)
                    near = judged.decided["temperature"]
                    yield setting, number, judged


def _settings_but_for_k(heads: Sequence[KNNHead]) -> list[list[int]]:
    """Return the numbers of heads that differ in nothing but k, the smallest k first."""
    order = sorted(range(len(heads)), key=lambda setting: heads[setting].k)
    groups = equal_settings(
        [(each.metric, each.sharpness, each.class_weight, each.temperature) for each in (heads[i] for i in order)]
    )
    return [[order[place] for place in group] for group in groups]
