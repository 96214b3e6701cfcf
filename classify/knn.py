"""k nearest neighbours: no training at all, and one table of neighbours for every setting and fold."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from classify.allowed import OPTIONAL, Allowed, Choice, Range
from classify.arrays import AnyArray, BoolArray, FloatArray, IntArray
from classify.contract import begin_fit, begin_fit_all, begin_predict, row_weights
from classify.kernels import centre
from classify.moments import class_moments
from classify.neighbours import METRICS, Neighbours, find_neighbours, round_neighbours
from classify.plain import plain, working, working_dtype
from classify.trials import Trial

# Rows whose neighbours vote at a time: with k = 200 they are 16 MB.
BLOCK = 2048


def _variances(X: FloatArray, counts: FloatArray, rounds: Sequence[BoolArray]) -> list[float]:
    """Return for each round the variance of the rows that it trains on, summed over columns, from one pass over all."""
    moments = class_moments(X, np.zeros(len(counts), dtype=np.int64), 1, counts, rounds)
    return [float(each.total().sum()) for each in moments]


class KNNHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Votes of the k nearest training rows (Cover and Hart 1967), by cosine or Euclidean distance.

        v_i = exp((s_i - s_1) / sharpness)      1 for the nearest, less for those less similar (Wu et al. 2018, DINO)
        p_c = (sum of v_i of class c + pi_c) / (sum of v_i + 1)

    with s the cosine, or -|x - x_i|^2 / (2 V), V the variance of the training rows, summed over columns. sharpness=None
    gives every neighbour one vote. pi_c, the share of class c, is one vote's worth of prior: no class is ever
    impossible, and equal votes go to the more frequent class. k above N means all rows.

    A row of sample weight 2 counts as two neighbours; among the k rows looked at, those count whose weights fit into k.
    A class weight multiplies votes and prior instead.
    """

    allowed: ClassVar[Allowed] = {
        "k": Range("1 neighbour or more, a whole number", least=1.0, whole=True),
        "metric": Choice(*METRICS),
        "sharpness": OPTIONAL,
    }
    common: ClassVar[tuple[str, ...]] = ()
    classes_: AnyArray

    def __init__(
        self,
        k: int = 10,
        *,
        metric: str = "cosine",
        sharpness: float | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
    ) -> None:
        self.k = k
        self.metric = metric
        self.sharpness = sharpness
        self.class_weight = class_weight

    def fit(self, X: FloatArray, y: AnyArray, sample_weight: FloatArray | None = None) -> Self:
        """Keep the rows of X (N, D), their labels y (N,) and weights (N,); rows without a weight are left out."""
        X, codes = begin_fit(self, X, y)
        X = plain(X)
        counts, factors = self._weights(codes, sample_weight)
        kept = counts > 0
        self.rows_, self.codes_, self.counts_ = (
            (X, codes, counts) if kept.all() else (X[kept], codes[kept], counts[kept])
        )
        self.factors_ = factors
        self.origin_, self.variance_ = centre(self.rows_, self.counts_)
        self.converged_ = True
        return self

    def predict_proba(self, X: FloatArray) -> FloatArray:
        """Return the class probabilities (M, C) of X (M, D)."""
        X = working(plain(begin_predict(self, X))).astype(working_dtype(self.rows_), copy=False)
        found = find_neighbours(X, self.rows_, self.k, self.metric, self.origin_)
        return self._proba(found, self.codes_, self.counts_)

    def predict(self, X: FloatArray) -> AnyArray:
        """Return the most probable label (M,) for each row of X (M, D)."""
        return self.predict_both(X)[0]

    def predict_both(self, X: FloatArray) -> tuple[AnyArray, FloatArray]:
        """Return what `predict` and `predict_proba` do, at the cost of one."""
        proba = self.predict_proba(X)
        return np.asarray(self.classes_[proba.argmax(axis=1)]), proba

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
        X, codes = begin_fit_all(heads, X, y)
        X = plain(X)
        for head in heads:
            counts, head.factors_ = head._weights(codes, sample_weight)
        origin, _ = centre(X, counts)
        metrics = sorted({head.metric for head in heads})
        tables = round_neighbours(X, rounds, max(head.k for head in heads), metrics, origin)
        needs_variance = any(head._needs_variance for head in heads)
        variances = _variances(X, counts, rounds) if needs_variance else [1.0] * len(rounds)
        for number, (held_out, table, variance) in enumerate(zip(rounds, tables, variances, strict=True)):
            trained = np.where(held_out, 0.0, counts)
            for setting, head in enumerate(heads):
                head.variance_ = variance
                proba = head._proba(table[head.metric], codes, trained)
                yield setting, number, Trial(head.classes_, proba, head.classes_[proba.argmax(axis=1)])

    @property
    def _needs_variance(self) -> bool:
        return self.metric == "euclidean" and self.sharpness is not None

    def _weights(self, codes: IntArray, sample_weight: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Return how often each row counts, (N,), and what the votes of each class are multiplied with, (C,)."""
        counts = row_weights(None, self.classes_, codes, sample_weight)
        once = np.ones(len(codes))
        weighted = row_weights(self.class_weight, self.classes_, codes, counts)
        factors = np.ones(len(self.classes_))
        factors[codes[counts > 0]] = (weighted / np.where(counts > 0, counts, once))[counts > 0]
        return counts, factors

    def _prior(self, codes: IntArray, counts: FloatArray) -> FloatArray:
        """Return one vote (C,), shared out as the classes of the rows are, whose codes and counts (N,) are given."""
        prior = np.bincount(codes, counts, minlength=len(self.classes_)) * self.factors_
        return np.asarray(prior / prior.sum())

    def _proba(self, found: Neighbours, codes: IntArray, counts: FloatArray) -> FloatArray:
        """Return the probabilities (M, C) by the votes of neighbours, for the codes and counts (N,) of all rows."""
        prior = self._prior(codes, counts)
        return np.concatenate([
            self._elect(found.rows[i : i + BLOCK], found.similarity[i : i + BLOCK], codes, counts, prior)
            for i in range(0, len(found.rows), BLOCK)
        ])  # fmt: skip

    def _elect(
        self, rows: IntArray, similarity: FloatArray, codes: IntArray, counts: FloatArray, prior: FloatArray
    ) -> FloatArray:
        """Do so for a block: rows, similarity (B, k or more)."""
        rows, similarity, n_classes = rows[:, : self.k], similarity[:, : self.k], len(self.classes_)
        # What was met without a weight, or never (k above N), counts as nothing.
        own = np.where(np.isfinite(similarity), counts.take(rows), 0.0)
        cells = codes.take(rows) + n_classes * np.arange(len(rows))[:, None]
        votes = self._votes(own, similarity)
        of_class = np.bincount(cells.ravel(), votes.ravel(), minlength=len(rows) * n_classes)
        total = of_class.reshape(-1, n_classes) * self.factors_ + prior
        return np.asarray(total / total.sum(axis=1, keepdims=True))

    def _votes(self, counts: FloatArray, similarity: FloatArray) -> FloatArray:
        """Return the vote (B, k) of each neighbour: its count, as far as it fits into k, times its nearness."""
        fitting = counts
        if counts.max() > 1.0:  # k rows that count once or less all fit
            nearer = np.cumsum(counts, axis=1) - counts
            fitting = np.minimum(counts, np.maximum(self.k - nearer, 0.0))
        if self.sharpness is None:
            return fitting
        unit = max(self.variance_, np.finfo(np.float64).tiny) if self._needs_variance else 1.0
        return np.asarray(fitting * np.exp((similarity - similarity[:, :1]) / (self.sharpness * unit)))
