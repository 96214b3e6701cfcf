"""Is one head better than another, or are they tied? Paired tests on the same test images.

McNemar's exact test (McNemar 1947; Dietterich 1998, "Approximate Statistical Tests"): of the images that exactly one of
two heads gets right, each head should get half if both are equally good. Holm's step-down correction (Holm 1979) over
all pairs keeps the chance of even one false difference below 5 % however many heads are compared. All pairs, not only
those with the best: which head is the best is read off the same images, so each head had its chance to be it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from classify.arrays import BoolArray, FloatArray

# The family-wise chance of calling equal heads different.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Pair:
    """Two heads on the same test images."""

    a: str
    b: str
    only_a: int
    """Images that a alone got right."""
    only_b: int
    p: float
    """McNemar's exact p-value."""
    p_holm: float
    """The same, adjusted for all pairs."""

    @property
    def different(self) -> bool:
        """Whether one of them is better, beyond chance."""
        return self.p_holm <= SIGNIFICANCE

    @property
    def better(self) -> str | None:
        """Which of the two is; None where they are tied."""
        if not self.different:
            return None
        return self.a if self.only_a > self.only_b else self.b


def mcnemar(correct_a: BoolArray, correct_b: BoolArray) -> float:
    """Return the two-sided exact p-value that heads a and b are equally good, from their right answers, bool (N,) each.

    With b images that only the first got right and c that only the second did: p = min(1, 2 P[Binomial(b + c, 1/2) <=
    min(b, c)]); p = 1 where they never differ. Raises ValueError unless both have the same length.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"Paired tests need the same images: got {len(correct_a)} and {len(correct_b)} answers.")
    return _exact_p(int(np.sum(correct_a & ~correct_b)), int(np.sum(correct_b & ~correct_a)))


def _exact_p(only_a: int, only_b: int) -> float:
    from scipy.stats import binom

    return min(1.0, 2.0 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order given: max over j <= i of min(1, (m - j + 1) p_(j)), p sorted."""
    order = np.argsort(np.asarray(p_values), kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compare_pairs(correct: Mapping[str, BoolArray]) -> list[Pair]:
    """Return every pair of heads, in the order given, from their right answers, bool (N,) each.

    Raises ValueError unless all have the same length.
    """
    names = list(correct)
    if len({answers.shape for answers in correct.values()}) > 1:
        lengths = ", ".join(f"{name} {len(answers)}" for name, answers in correct.items())
        raise ValueError(f"Paired tests need the same images: got answers of different number, {lengths}.")
    right = np.array([correct[name] for name in names], dtype=np.float64)
    only = np.rint(right @ (1.0 - right).T).astype(int) if names else np.zeros((0, 0), dtype=int)
    pairs = list(combinations(range(len(names)), 2))
    p_values = [_exact_p(int(only[i, j]), int(only[j, i])) for i, j in pairs]
    return [
        Pair(names[i], names[j], int(only[i, j]), int(only[j, i]), p, adjusted)
        for (i, j), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    ]


def compare_with_best(correct: Mapping[str, BoolArray]) -> dict[str, tuple[float, bool]]:
    """Return {name: (Holm-adjusted p against the best head, tied with the best)} for right answers bool (N,) per head.

    The best head has most right answers, the first named of equals; it has p 1.0 and is tied with itself. A head is
    tied when its p, adjusted for all pairs of heads, is above 0.05.
    """
    if not correct:
        return {}
    best = best_of(correct)
    adjusted = {best: 1.0}
    for pair in compare_pairs(correct):
        if best in (pair.a, pair.b):
            adjusted[pair.b if pair.a == best else pair.a] = pair.p_holm
    return {name: (adjusted[name], adjusted[name] > SIGNIFICANCE) for name in correct}


def best_of(correct: Mapping[str, BoolArray]) -> str:
    """Return the name with most right answers, the first of equals."""
    return max(correct, key=lambda name: int(np.sum(correct[name])))


def ranks(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, int]:
    """Return {name: 1 + the number of heads that are better beyond chance}: heads that are tied share a rank."""
    beaten = [pair.b if pair.better == pair.a else pair.a for pair in pairs if pair.different]
    return {name: 1 + beaten.count(name) for name in names}


def mean_difference(differences: FloatArray, *, n_train: float, n_test: float) -> tuple[float, float, float, float]:
    """Return mean, 95 % ends and two-sided p-value of differences (J,) from J splits of the same images.

    The corrected resampled t-test (Nadeau and Bengio 2003, "Inference for the Generalization Error"). The J test sets
    overlap with each other's training sets, so the plain variance of a mean is too small:

        t = mean(d) / sqrt((1 / J + n_test / n_train) var(d)),   J - 1 degrees of freedom

    n_train, n_test: images trained on and tested in a split. With J = 1, or equal differences, nothing is known about
    the spread: the ends are -inf and inf, p is 1. Raises ValueError for no difference, or no image.
    """
    from scipy.stats import t

    if len(differences) == 0 or n_train <= 0 or n_test <= 0:
        raise ValueError(f"{len(differences)} splits of {n_train} and {n_test} images: there must be some of each.")
    mean, n_splits = float(np.mean(differences)), len(differences)
    variance = float(np.var(differences, ddof=1)) if n_splits > 1 else 0.0
    if variance == 0.0:
        return mean, -np.inf, np.inf, 1.0
    error = float(np.sqrt((1 / n_splits + n_test / n_train) * variance))
    half = float(t.ppf(0.975, n_splits - 1)) * error
    return mean, mean - half, mean + half, 2.0 * float(t.sf(abs(mean) / error, n_splits - 1))
