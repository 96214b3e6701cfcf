"""Comparison of heads on one test set: every metric with its interval, every pair with its difference and its test."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NotRequired, TypedDict, cast

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.evaluation.bootstrap import N_RESAMPLES, Replicates, bootstrap, draw_counts
from featurecache.classify.evaluation.clustered import are_own, widening
from featurecache.classify.evaluation.criteria import ACCURACY
from featurecache.classify.evaluation.intervals import difference_interval, intervals
from featurecache.classify.evaluation.metrics import Z_95, ClassRow, log_losses, score_by_class, score_fully
from featurecache.classify.evaluation.permutation import Answers
from featurecache.classify.evaluation.ranking import rank_heads
from featurecache.classify.evaluation.significance import Pair


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
    """Two heads on test: the numbers of `Pair`, and the difference of their metric, a minus b."""

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
    """The head with the best value of the metric."""
    heads: dict[str, HeadRow]
    pairs: list[PairRow]


def compare_heads(
    y_true: IntArray,
    heads: Mapping[str, tuple[FloatArray, IntArray]],
    *,
    metric: str = ACCURACY,
    units: IntArray | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare heads {name: (proba (N, C), y_pred (N,))} on the codes y_true (N,) of the same N test images.

    metric: what ranks and tests are by, one of `criteria.METRICS`. units (N,): images of a unit (a group, or copies)
    are no independent evidence, so intervals and tests resample units. Raises ValueError for no head, no image, or
    lengths that disagree.
    """
    if not heads:
        raise ValueError("There is no head to compare.")
    scores = {name: score_fully(y_true, proba, y_pred) for name, (proba, y_pred) in heads.items()}
    own = None if units is None or are_own(units) else np.unique(units, return_inverse=True)[1].ravel()
    counts = draw_counts(len(y_true), units=own, n_resamples=n_resamples, seed=seed)
    replicates = bootstrap(y_true, heads, counts)
    answers = {name: Answers(y_pred, log_losses(y_true, proba)) for name, (proba, y_pred) in heads.items()}
    ranking = rank_heads(y_true, answers, metric=metric, units=own, seed=seed)
    rows: dict[str, HeadRow] = {}
    for name, (proba, y_pred) in heads.items():
        ends = intervals(scores[name], replicates[name], y_true, y_pred, units=own)
        ci = {key: list(limits) for key, limits in ends.items()}
        rows[name] = {
            "test": cast(TestMetrics, {**scores[name], "accuracy_ci": ci["accuracy"], "ci": ci}),
            "by_class": score_by_class(y_true, y_pred, proba.shape[1], own),
            "rank": ranking.rank[name],
            "p_vs_best": ranking.against_best[name][0],
            "tied_with_best": ranking.against_best[name][1],
        }
    row = partial(_pair_row, metric=metric, scores=scores, replicates=replicates, y_true=y_true, answers=answers)
    return Comparison(ranking.best, rows, [row(pair, units=own) for pair in ranking.pairs])


def _pair_row(
    pair: Pair,
    *,
    metric: str,
    scores: Mapping[str, Mapping[str, float]],
    replicates: Mapping[str, Replicates],
    y_true: IntArray,
    answers: Mapping[str, Answers],
    units: IntArray | None,
) -> PairRow:
    difference = scores[pair.a][metric] - scores[pair.b][metric]
    if metric == ACCURACY:
        difference = (pair.only_a - pair.only_b) / len(y_true)
        of_a, of_b = (np.asarray(answers[name].predicted == y_true) for name in (pair.a, pair.b))
        low, high = difference_interval(of_a, of_b, units)
    else:
        spread = float(np.std(replicates[pair.a][metric] - replicates[pair.b][metric]))
        half = Z_95 * spread * float(np.sqrt(widening(units))) if spread > 0 else 0.0
        low, high = difference - half, difference + half
    return {
        "a": pair.a,
        "b": pair.b,
        "only_a": pair.only_a,
        "only_b": pair.only_b,
        "p": pair.p,
        "p_holm": pair.p_holm,
        "different": pair.different,
        "difference": difference,
        "difference_ci": [low, high],
    }
