"""Is one head better than another, or are they tied? Paired tests on the same test images.

McNemar's exact test (McNemar 1947; Dietterich 1998, "Approximate Statistical Tests"): of the images that exactly one of
two heads gets right, each head should get half if both are equally good. Holm's step-down correction (Holm 1979) keeps
the chance of even one false difference below 5 % however many heads are compared.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from classify.arrays import BoolArray

# The family-wise chance of calling equal heads different.
SIGNIFICANCE = 0.05


def mcnemar(correct_a: BoolArray, correct_b: BoolArray) -> float:
    """Return the two-sided exact p-value that heads a and b are equally good, from their right answers, bool (N,) each.

    With b images that only the first got right and c that only the second did: p = min(1, 2 P[Binomial(b + c, 1/2) <=
    min(b, c)]); p = 1 where they never differ. Raises ValueError unless both have the same length.
    """
    from scipy.stats import binom

    if correct_a.shape != correct_b.shape:
        raise ValueError(f"Paired tests need the same images: got {len(correct_a)} and {len(correct_b)} answers.")
    only_a = int(np.sum(correct_a & ~correct_b))
    only_b = int(np.sum(correct_b & ~correct_a))
    return min(1.0, 2.0 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order given: max over j <= i of min(1, (m - j + 1) p_(j)), p sorted."""
    order = np.argsort(np.asarray(p_values), kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compare_with_best(correct: Mapping[str, BoolArray]) -> dict[str, tuple[float, bool]]:
    """Return {name: (Holm-adjusted p against the best head, tied with the best)} for right answers bool (N,) per head.

    The best head has most right answers, the first named of equals; it has p 1.0 and is tied with itself. A head is
    tied when its p is above 0.05.
    """
    if not correct:
        return {}
    best = max(correct, key=lambda name: int(np.sum(correct[name])))
    others = [name for name in correct if name != best]
    adjusted = dict(zip(others, holm([mcnemar(correct[best], correct[name]) for name in others]), strict=True))
    adjusted[best] = 1.0
    return {name: (adjusted[name], adjusted[name] > SIGNIFICANCE) for name in correct}
