"""Metrics as sums over rows, so that probabilities need not be kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.evaluation.metrics import (
    COUNT_METRICS,
    ECE_BINS,
    SMALLEST_PROBABILITY,
    confidence_bins,
)


@dataclass(frozen=True)
class MetricSums:
    """Sums over n_rows rows from which `metrics.score` follows; those of disjoint rows are added with `+`.

    right: correct predictions. loss: sum of -ln p of the true class. squares: sum of the squared distances of `brier`.
    gaps (15,): sum of correct minus confident in each confidence bin. hits, named (C,): correct and all predictions of
    each class.
    """

    n_rows: int
    right: int
    loss: float
    squares: float
    gaps: FloatArray
    hits: IntArray
    named: IntArray

    @classmethod
    def of(
        cls, parts: Iterable[tuple[slice, FloatArray]], truth: IntArray, predicted: IntArray, n_classes: int
    ) -> Self:
        """Return the sums of predicted codes (M,) against true codes (M,), -1 for a class without a column.

        parts: rows, and their probabilities (B, C) in float64; together they are all M rows.
        """
        correct = truth == predicted
        loss, squares, gaps = 0.0, 0.0, np.zeros(ECE_BINS)
        for rows, proba in parts:
            codes, every = truth[rows], np.arange(len(proba))
            of_true = np.where(codes >= 0, proba[every, codes], 0.0)
            loss -= float(np.log(np.clip(of_true, SMALLEST_PROBABILITY, 1.0)).sum())
            distance = np.einsum("ij,ij->i", proba, proba) - 2.0 * of_true + 1.0
            squares += float(np.maximum(distance, 0.0).sum())
            confidence = proba[every, predicted[rows]]
            gaps += np.bincount(confidence_bins(confidence), correct[rows] - confidence, minlength=ECE_BINS)
        hits = np.bincount(predicted[correct], minlength=n_classes)
        named = np.bincount(predicted, minlength=n_classes)
        return cls(len(truth), int(correct.sum()), loss, squares, gaps, hits, named)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.n_rows + other.n_rows,
            self.right + other.right,
            self.loss + other.loss,
            self.squares + other.squares,
            self.gaps + other.gaps,
            self.hits + other.hits,
            self.named + other.named,
        )

    def among(self, columns: IntArray, n_classes: int) -> Self:
        """Return the same sums with the classes (C,) at some columns of n_classes."""
        hits, named = np.zeros(n_classes, dtype=np.int64), np.zeros(n_classes, dtype=np.int64)
        hits[columns], named[columns] = self.hits, self.named
        return type(self)(self.n_rows, self.right, self.loss, self.squares, self.gaps, hits, named)

    def metrics(self, support: IntArray) -> dict[str, float]:
        """Return `metrics.score` of these rows, of which support (C,) belong to each class."""
        return {
            **{name: float(value(self.hits, support, self.named)) for name, value in COUNT_METRICS.items()},
            "accuracy": self.right / self.n_rows,  # also of rows whose class has no column
            "log_loss": self.loss / self.n_rows + 0.0,  # never -0.0
            "ece": float(np.abs(self.gaps).sum() / self.n_rows),
            "brier": self.squares / self.n_rows,
        }
