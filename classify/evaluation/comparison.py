"""Heads on one test set, side by side: every metric with its interval, every pair with its difference and its test."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.evaluation.bootstrap import N_RESAMPLES, bootstrap, draw_counts
from featurecache.classify.evaluation.clustered import are_own
from featurecache.classify.evaluation.intervals import difference_interval, intervals
from featurecache.classify.evaluation.metrics import score_by_class, score_fully
from featurecache.classify.evaluation.significance import Pair, best_of, compare_pairs, compare_with_best, ranks


@dataclass(frozen=True)
class Comparison:
    """What results.json says about the heads on test; plain values that JSON can hold."""

    best: str
    """The head with most right answers."""
    heads: dict[str, dict[str, Any]]
    """For each head: test (metrics, accuracy_ci, ci of every metric), by_class, rank, p_vs_best, tied_with_best."""
    pairs: list[dict[str, Any]]
    """For each pair: a, b, only_a, only_b, p, p_holm, different, difference (accuracy of a minus b), difference_ci."""


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
    told = {}
    for name, (proba, y_pred) in heads.items():
        ends = intervals(scores[name], replicates[name], y_true, y_pred, units=own)
        ci = {key: list(limits) for key, limits in ends.items()}
        told[name] = {
            "test": {**scores[name], "accuracy_ci": ci["accuracy"], "ci": ci},
            "by_class": score_by_class(y_true, y_pred, proba.shape[1], own),
            "rank": rank[name],
            "p_vs_best": against_best[name][0],
            "tied_with_best": against_best[name][1],
        }
    return Comparison(best_of(correct), told, [_pair_row(pair, correct, own) for pair in pairs])


def _pair_row(pair: Pair, correct: Mapping[str, BoolArray], units: IntArray | None) -> dict[str, Any]:
    n = len(correct[pair.a])
    low, high = difference_interval(correct[pair.a], correct[pair.b], units)
    return {
        **asdict(pair),
        "different": pair.different,
        "difference": (pair.only_a - pair.only_b) / n,
        "difference_ci": [low, high],
    }
