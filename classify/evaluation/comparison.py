"""Comparison of heads on one test set: every metric with its interval, every pair with its difference and its test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.evaluation.bootstrap import N_RESAMPLES, bootstrap, draw_counts
from featurecache.classify.evaluation.clustered import are_own
from featurecache.classify.evaluation.intervals import difference_interval, intervals
from featurecache.classify.evaluation.metrics import ClassRow, score_by_class, score_fully
from featurecache.classify.evaluation.significance import Pair, best_of, compare_pairs, compare_with_best, ranks


class TestMetrics(TypedDict):
    """Metrics on test with 95 % intervals [low, high]; ci: that of every metric."""

    accuracy: float
    accuracy_ci: list[float]
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    brier: float
    top5_accuracy: NotRequired[float]
    auc: NotRequired[float]
    ci: NotRequired[dict[str, list[float]]]


class HeadRow(TypedDict):
    """One head on test, and its place among the heads of a run."""

    test: TestMetrics
    by_class: list[ClassRow]
    rank: int
    p_vs_best: float
    tied_with_best: bool


class PairRow(TypedDict):
    """Two heads on test: the numbers of `Pair`, and the difference of their accuracies, a minus b."""

    a: str
    b: str
    only_a: int
    only_b: int
    p: float
    p_holm: float
    different: bool
    difference: float
    difference_ci: list[float]


@dataclass(frozen=True)
class Comparison:
    """The part of results.json on the heads' results on test; plain values that JSON can hold."""

    best: str
    """The head with most right answers."""
    heads: dict[str, HeadRow]
    pairs: list[PairRow]


def compare_heads(
    y_true: IntArray,
    heads: Mapping[str, tuple[FloatArray, IntArray]],
    *,
    units: IntArray | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare heads {name: (proba (N, C), y_pred (N,))} on the codes y_true (N,) of the same N test images.

    units (N,): images of a unit (a group, or copies) are no independent evidence, so intervals and tests resample
    units. Raises ValueError for no head, no image, or lengths that disagree.
    """
    if not heads:
        raise ValueError("There is no head to compare.")
    scores = {name: score_fully(y_true, proba, y_pred) for name, (proba, y_pred) in heads.items()}
    own = None if units is None or are_own(units) else np.unique(units, return_inverse=True)[1].ravel()
    counts = draw_counts(len(y_true), units=own, n_resamples=n_resamples, seed=seed)
    replicates = bootstrap(y_true, heads, counts)
    correct = {name: np.asarray(y_pred == y_true) for name, (_, y_pred) in heads.items()}
    pairs, against_best = compare_pairs(correct, own), compare_with_best(correct, own)
    rank = ranks(list(heads), pairs)
    rows: dict[str, HeadRow] = {}
    for name, (proba, y_pred) in heads.items():
        ends = intervals(scores[name], replicates[name], y_true, y_pred, units=own)
        ci = {key: list(limits) for key, limits in ends.items()}
        rows[name] = {
            "test": cast(TestMetrics, {**scores[name], "accuracy_ci": ci["accuracy"], "ci": ci}),
            "by_class": score_by_class(y_true, y_pred, proba.shape[1], own),
            "rank": rank[name],
            "p_vs_best": against_best[name][0],
            "tied_with_best": against_best[name][1],
        }
    return Comparison(best_of(correct), rows, [_pair_row(pair, correct, own) for pair in pairs])


def _pair_row(pair: Pair, correct: Mapping[str, BoolArray], units: IntArray | None) -> PairRow:
    n = len(correct[pair.a])
    low, high = difference_interval(correct[pair.a], correct[pair.b], units)
    return {
        "a": pair.a,
        "b": pair.b,
        "only_a": pair.only_a,
        "only_b": pair.only_b,
        "p": pair.p,
        "p_holm": pair.p_holm,
        "different": pair.different,
        "difference": (pair.only_a - pair.only_b) / n,
        "difference_ci": [low, high],
    }
