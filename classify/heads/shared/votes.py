"""Votes of neighbours, and their probabilities: see `classify.heads.knn.KNNHead`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.solvers.nearest_rows import Neighbours

# Rows whose neighbours vote at a time: with k = 200 they are 8 MB.
BLOCK = 1024


class Rule(Protocol):
    """The parameters of a `KNNHead` by which neighbours vote."""

    k: int
    metric: str
    sharpness: float | None


@dataclass(frozen=True)
class Voters:
    """The rows that may be neighbours: class codes (N,), and how often each counts, (N,), 0 for those that may not.

    factors (C,): what the votes of each class are multiplied with. variance: that of the rows, the unit of Euclidean
    distance. blank: which are zeros, (N,); by cosine they are like one another and like no other row.
    """

    codes: IntArray
    counts: FloatArray
    factors: FloatArray
    variance: float
    blank: BoolArray

    def prior(self) -> FloatArray:
        """Return one vote (C,), shared out as the classes of the rows are."""
        prior = np.bincount(self.codes, self.counts, minlength=len(self.factors)) * self.factors
        return np.asarray(prior / prior.sum())

    def all_fit(self) -> bool:
        """Return whether no row counts more than once, so that any k neighbours are k votes or fewer."""
        return bool(self.counts.max() <= 1.0)

    def votes(self, rule: Rule, rows: IntArray, similarity: FloatArray, begin: int) -> FloatArray:
        """Return the votes (B, C) of the k nearest but the `begin` nearest: rows, similarity (B, k or more)."""
        nearest, new = similarity[:, :1], slice(begin, rule.k)
        rows, similarity = rows[:, new], similarity[:, new]
        # Neighbours without a weight, or missing ones (k above N), have no vote.
        own = np.where(np.isfinite(similarity), self.counts.take(rows), 0.0)
        if not self.all_fit():
            own = np.minimum(own, np.maximum(rule.k - (np.cumsum(own, axis=1) - own), 0.0))
        if rule.sharpness is not None:
            unit = max(self.variance, np.finfo(np.float64).tiny) if rule.metric == "euclidean" else 1.0
            own *= np.exp((similarity - np.where(np.isfinite(nearest), nearest, 0.0)) / (rule.sharpness * unit))
        n_classes = len(self.factors)
        cells = self.codes.take(rows) + n_classes * np.arange(len(rows))[:, None]
        votes = np.bincount(cells.ravel(), own.ravel(), minlength=len(rows) * n_classes)
        return np.asarray(votes.reshape(len(rows), n_classes), dtype=np.float64)

    def votes_of_blank(self, k: int) -> FloatArray:
        """Return the votes (C,) of k rows of zeros, or all, for another: equally near, each class by its share."""
        counts = np.bincount(self.codes, np.where(self.blank, self.counts, 0.0), minlength=len(self.factors))
        return np.asarray(counts * min(1.0, k / max(float(counts.sum()), 1.0)))


def elect(
    rules: Sequence[Rule],
    found: Neighbours,
    voters: Voters,
    blank: BoolArray,
    votes: FloatArray,
    proba: FloatArray,
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield the most probable classes (M,) and the probabilities (M, C) by each of some rules, the smallest k first.

    The rules differ in nothing but k; where all fit, those who have voted for a smaller one need not do so again.
    blank (M,): the rows that are zeros, where the metric is the cosine. votes, proba (M, C): arrays to work in; what is
    yielded is `proba`, until the next.
    """
    prior, best = voters.prior(), np.empty(len(votes), dtype=np.int64)
    votes[:], begin = 0.0, 0
    for rule in rules:
        if not voters.all_fit():
            votes[:], begin = 0.0, 0
        for start in range(0, len(votes), BLOCK):
            block = slice(start, start + BLOCK)
            votes[block] += voters.votes(rule, found.rows[block], found.similarity[block], begin)
            votes[block][blank[block]] = voters.votes_of_blank(rule.k)
            total = votes[block] * voters.factors + prior
            best[block] = total.argmax(axis=1)
            proba[block] = total / total.sum(axis=1, keepdims=True)
        begin = rule.k
        yield best, proba
