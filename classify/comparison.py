"""Heads on one test set, side by side: every metric with its interval, every pair with its difference and its test."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.intervals import difference_interval, intervals
from classify.metrics import score_by_class, score_fully
from classify.resampling import N_RESAMPLES, Replicates, bootstrap, draw_counts
from classify.statistics import Pair, best_of, compare_pairs, compare_with_best, ranks


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
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare heads {name: (proba (N, C), y_pred (N,))} on the codes y_true (N,) of the same N test images.

    Raises ValueError for no head, no image, or lengths that disagree.
    """
    if not heads:
        raise ValueError("There is no head to compare.")
    scores = {name: score_fully(y_true, proba, y_pred) for name, (proba, y_pred) in heads.items()}
    replicates = bootstrap(y_true, heads, draw_counts(len(y_true), n_resamples=n_resamples, seed=seed))
    correct = {name: np.asarray(y_pred == y_true) for name, (_, y_pred) in heads.items()}
    pairs, against_best = compare_pairs(correct), compare_with_best(correct)
    rank = ranks(list(heads), pairs)
    support = np.bincount(y_true)
    told = {}
    for name, (proba, y_pred) in heads.items():
        ci = {key: list(ends) for key, ends in intervals(scores[name], replicates[name], support).items()}
        told[name] = {
            "test": {**scores[name], "accuracy_ci": ci["accuracy"], "ci": ci},
            "by_class": score_by_class(y_true, y_pred, proba.shape[1]),
            "rank": rank[name],
            "p_vs_best": against_best[name][0],
            "tied_with_best": against_best[name][1],
        }
    return Comparison(best_of(correct), told, [_pair_row(pair, len(y_true), replicates) for pair in pairs])


def _pair_row(pair: Pair, n: int, replicates: Mapping[str, Replicates]) -> dict[str, Any]:
    low, high = difference_interval(replicates[pair.a]["accuracy"], replicates[pair.b]["accuracy"])
    return {
        **asdict(pair),
        "different": pair.different,
        "difference": (pair.only_a - pair.only_b) / n,
        "difference_ci": [low, high],
    }
