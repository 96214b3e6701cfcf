"""k nearest neighbours: no training at all, and one table of neighbours for every setting and fold."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from classify.allowed import NOT_NEGATIVE, OPTIONAL, Allowed, Choice, Range
from classify.arrays import AnyArray, BoolArray, FloatArray, IntArray
from classify.contract import begin_fit, begin_fit_all, begin_predict, row_weights
from classify.files import empty_beside
from classify.kernels import centre
from classify.learned import FITTED, Array, Learned
from classify.moments import class_moments
from classify.neighbours import METRICS, Neighbours, find_neighbours, round_neighbours
from classify.plain import plain, working, working_dtype
from classify.trials import Trial, judge_scores

# Rows that count as nothing are left out by `fit`.
SMALLEST_COUNT = float(np.finfo(np.float64).tiny)
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
    learned: ClassVar[Learned] = {
        **FITTED,
        "rows_": Array("N", "D"),
        "codes_": Array("N", kind="iu", below="C"),
        "counts_": Array("N", least=SMALLEST_COUNT),
        "factors_": Array("C", least=0.0),
        "origin_": Array("D"),
        "variance_": NOT_NEGATIVE,
    }
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
        return self.predict_both(X)[1]

    def predict(self, X: FloatArray) -> AnyArray:
        """Return the most probable label (M,) for each row of X (M, D)."""
        return self.predict_both(X)[0]

    def predict_both(self, X: FloatArray) -> tuple[AnyArray, FloatArray]:
        """Return what `predict` and `predict_proba` do, at the cost of one."""
        X = working(plain(begin_predict(self, X))).astype(working_dtype(self.rows_), copy=False)
        found = find_neighbours(X, self.rows_, self.k, self.metric, self.origin_)
        votes = np.zeros((len(X), len(self.classes_)), dtype=X.dtype)
        best, proba = next(_elect([self], found, self.codes_, self.counts_, votes, np.empty_like(votes)))
        return np.asarray(self.classes_[best]), proba

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
            trained, labels = np.where(held_out, 0.0, counts), heads[0].classes_[codes[held_out]]
            shape = int(held_out.sum()), len(heads[0].classes_)
            there = np.bincount(codes, trained, minlength=shape[1]) > 0
            arrays = [empty_beside(X, shape, working_dtype(X)) for _ in range(2)]
            for settings in _alike(heads):
                chosen = [heads[setting] for setting in settings]
                for head in chosen:
                    head.variance_ = variance
                elected = _elect(chosen, table[chosen[0].metric], codes, trained, *arrays)
                for setting, head, (best, proba) in zip(settings, chosen, elected, strict=True):
                    known, classes = (proba if there.all() else proba[:, there]), head.classes_
                    scores = np.log(known, out=known)  # none is zero: every class has its share of the prior
                    yield setting, number, judge_scores(head, scores, labels, classes[there], predicted=classes[best])

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

    def _vote(
        self, rows: IntArray, similarity: FloatArray, begin: int, codes: IntArray, counts: FloatArray
    ) -> FloatArray:
        """Return the votes (B, C) of the k nearest but the `begin` nearest: rows, similarity (B, k or more)."""
        nearest, new = similarity[:, :1], slice(begin, self.k)
        rows, similarity = rows[:, new], similarity[:, new]
        # What was met without a weight, or never (k above N), counts as nothing.
        own = np.where(np.isfinite(similarity), counts.take(rows), 0.0)
        if not _all_fit(counts):
            own = np.minimum(own, np.maximum(self.k - (np.cumsum(own, axis=1) - own), 0.0))
        if self.sharpness is not None:
            unit = max(self.variance_, np.finfo(np.float64).tiny) if self._needs_variance else 1.0
            own *= np.exp((similarity - nearest) / (self.sharpness * unit))
        n_classes = len(self.classes_)
        cells = codes.take(rows) + n_classes * np.arange(len(rows))[:, None]
        votes = np.bincount(cells.ravel(), own.ravel(), minlength=len(rows) * n_classes)
        return np.asarray(votes.reshape(len(rows), n_classes), dtype=np.float64)


def _alike(heads: Sequence[KNNHead]) -> list[list[int]]:
    """Return the numbers of heads that differ in nothing but k, the smallest k first."""
    groups: dict[str, list[int]] = {}
    for setting in sorted(range(len(heads)), key=lambda setting: heads[setting].k):
        groups.setdefault(repr(heads[setting].get_params() | {"k": None}), []).append(setting)
    return list(groups.values())


def _all_fit(counts: FloatArray) -> bool:
    """Say whether any k neighbours fit into k: of rows that count (N,) once or less."""
    return bool(counts.max() <= 1.0)


def _elect(
    heads: Sequence[KNNHead],
    found: Neighbours,
    codes: IntArray,
    counts: FloatArray,
    votes: FloatArray,
    proba: FloatArray,
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield the most probable classes (M,) and the probabilities (M, C) by each of some heads, the smallest k first.

    The heads differ in nothing but k. codes, counts (N,): of all rows that may be among the neighbours. Where all fit,
    those who have voted for a smaller k need not do so again. votes, proba (M, C): arrays to work in; what is yielded
    is `proba`, until the next.
    """
    prior, best = heads[0]._prior(codes, counts), np.empty(len(votes), dtype=np.int64)
    votes[:], begin = 0.0, 0
    for head in heads:
        if not _all_fit(counts):
            votes[:], begin = 0.0, 0
        for start in range(0, len(votes), BLOCK):
            block = slice(start, start + BLOCK)
            votes[block] += head._vote(found.rows[block], found.similarity[block], begin, codes, counts)
            total = votes[block] * head.factors_ + prior
            best[block] = total.argmax(axis=1)
            proba[block] = total / total.sum(axis=1, keepdims=True)
        begin = head.k
        yield best, proba
