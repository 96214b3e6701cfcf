"""Heads on one test set, ranked by a metric: the best, every pair with its test, and who is tied with the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from featurecache.classify.arrays.array_types import IntArray
from featurecache.classify.evaluation.clustered import are_own
from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA
from featurecache.classify.evaluation.permutation import Answers, Pairs, permutation_tests
from featurecache.classify.evaluation.significance import Pair, against, compare_pairs, holm, paired_test, ranks


@dataclass(frozen=True)
class Ranking:
    """What a comparison of heads by one metric comes to."""

    best: str
    """The head with the best value, the first named of equals."""
    pairs: list[Pair]
    rank: dict[str, int]
    """1 + the number of heads that are better beyond chance."""
    against_best: dict[str, tuple[float, bool]]
    """{name: (Holm-adjusted p against the best head, tied with the best)}."""


def rank_heads(
    y_true: IntArray,
    answers: Mapping[str, Answers],
    *,
    metric: str = ACCURACY,
    units: IntArray | None = None,
    seed: int = 0,
) -> Ranking:
    """Rank heads by their answers on the same N images, codes y_true (N,), which come in units (N,), 0..U-1.

    By accuracy with `significance.paired_test`, by another metric with `permutation.permutation_tests`; Holm's
    correction is over all pairs. Raises ValueError for no head, and for answers of different number.
    """
    names = list(answers)
    if not names:
        raise ValueError("There is no head to rank.")
    values = {name: answers[name].value(metric, y_true) for name in names}
    pairs = compare_pairs({name: np.asarray(answers[name].predicted == y_true) for name in names}, units)
    if metric != ACCURACY:
        places = list(combinations(range(len(names)), 2))
        p_values = paired_tests(y_true, list(answers.values()), places, metric=metric, units=units, seed=seed)
        cost = {name: CRITERIA[metric].cost(values[name]) for name in names}
        pairs = [
            replace(pair, p=p, p_holm=adjusted, gain=cost[pair.b] - cost[pair.a])
            for pair, p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
        ]
    best = min(names, key=lambda name: CRITERIA[metric].cost(values[name]))
    return Ranking(best, pairs, ranks(names, pairs), against(best, names, pairs))


def paired_tests(
    y_true: IntArray,
    answers: Sequence[Answers],
    pairs: Pairs,
    *,
    metric: str = ACCURACY,
    units: IntArray | None = None,
    seed: int = 0,
) -> list[float]:
    """Return the two-sided p-value of each pair (P,) of places in answers, by the test of the metric, uncorrected."""
    own = None if are_own(units) else units
    if metric != ACCURACY:
        return permutation_tests(metric, y_true, answers, pairs, units=own, seed=seed)
    correct = [np.asarray(each.predicted == y_true) for each in answers]
    return [paired_test(correct[a], correct[b], own) for a, b in pairs]
