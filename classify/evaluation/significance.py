"""Paired tests of heads on the same test images, and ties with the best.

McNemar's exact test (McNemar 1947; Dietterich 1998, "Approximate Statistical Tests"): of the images that exactly one of
two heads gets right, each head should get half if both are equally good. Images of one unit (a group, or copies) are
right or wrong together, so there it is the exact sign-flip test (Fisher 1935, "The Design of Experiments", section 21):
with d_u the right answers of a minus those of b in unit u, every sign of every d_u is as likely as the other,

    p = P[ |sum_u s_u d_u| >= |sum_u d_u| ],    s_u = -1 or 1 with probability 1/2 each

which is McNemar's test where every d_u is -1, 0 or 1. Holm's step-down correction (Holm 1979) over all pairs keeps the
chance of even one false difference below 5 % however many heads are compared. All pairs, not only those with the best:
which head is the best is read off the same images, so each head had its chance to be it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.evaluation.clustered import are_own

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
    """Of `paired_test`."""
    p_holm: float
    """The same, adjusted for all pairs."""
    gain: float | None = None
    """By how much a is better than b; None where it is by right answers."""

    @property
    def different(self) -> bool:
        """Whether one of them is better, beyond chance."""
        return self.p_holm <= SIGNIFICANCE

    @property
    def better(self) -> str | None:
        """Which of the two is; None where they are tied."""
        if not self.different:
            return None
        gain = self.only_a - self.only_b if self.gain is None else self.gain
        return self.a if gain > 0 else self.b


def paired_test(correct_a: BoolArray, correct_b: BoolArray, units: IntArray | None = None) -> float:
    """Return the two-sided exact p-value that heads a and b are equally good, from their right answers, bool (N,) each.

    McNemar's test, p = min(1, 2 P[Binomial(n_a + n_b, 1/2) <= min(n_a, n_b)]) with n_a images that only a got right and
    n_b that only b did; with units (N,), 0..U-1, the sign-flip test over units. p = 1 where the sums are equal. Raises
    ValueError unless all have the same length.
    """
    n_units = len(correct_a) if units is None else len(units)
    if correct_a.shape != correct_b.shape or n_units != len(correct_a):
        raise ValueError(f"Paired tests need the same images: got {len(correct_a)} and {len(correct_b)} answers.")
    return sign_flip_p(
        _right_by_unit(np.stack([correct_a]), units)[0] - _right_by_unit(np.stack([correct_b]), units)[0]
    )


def sign_flip_p(differences: IntArray) -> float:
    """Return P[|sum_u s_u d_u| >= |sum_u d_u|] over random signs s_u, exactly, for whole numbers d (U,).

    The distribution of the sum of the d_u with positive sign, by dynamic programming over its values 0..sum |d_u|.
    """
    d = differences[differences != 0]
    sizes = np.sort(np.abs(d))
    if not len(sizes) or sizes[-1] == 1:
        return _exact_p(int(np.sum(d > 0)), int(np.sum(d < 0)))
    total = int(sizes.sum())
    chance, top = np.zeros(total + 1), 0
    chance[0] = 1.0
    for size in sizes.tolist():
        before = chance[: top + 1].copy()
        top += size
        chance[: top + 1] *= 0.5
        chance[size : top + 1] += 0.5 * before
    distance = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(chance[distance >= abs(int(d.sum()))].sum()))


def _right_by_unit(right: BoolArray, units: IntArray | None) -> IntArray:
    """Return the right answers (H, N) summed over each unit, int (H, U)."""
    if units is None or are_own(units):
        return right.astype(np.int64)
    n_units = int(units.max()) + 1
    return np.array([np.bincount(units[row], minlength=n_units) for row in right], dtype=np.int64)


def _exact_p(only_a: int, only_b: int) -> float:
    from scipy.special import bdtr  # to import scipy.stats for its binom takes a second

    return min(1.0, 2.0 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order given: max over j <= i of min(1, (m - j + 1) p_(j)), p sorted."""
    order = np.argsort(np.asarray(p_values), kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compare_pairs(correct: Mapping[str, BoolArray], units: IntArray | None = None) -> list[Pair]:
    """Return every pair of heads, in the order given, from their right answers, bool (N,) each, in units (N,).

    Raises ValueError unless all have the same length.
    """
    names = list(correct)
    if len({answers.shape for answers in correct.values()}) > 1:
        lengths = ", ".join(f"{name} {len(answers)}" for name, answers in correct.items())
        raise ValueError(f"Paired tests need the same images: got answers of different number, {lengths}.")
    right = np.array([correct[name] for name in names], dtype=np.float64)
    only = np.rint(right @ (1.0 - right).T).astype(int) if names else np.zeros((0, 0), dtype=int)
    pairs = list(combinations(range(len(names)), 2))
    if are_own(units):
        p_values = [_exact_p(int(only[i, j]), int(only[j, i])) for i, j in pairs]
    else:
        sums = _right_by_unit(right > 0, units)
        p_values = [sign_flip_p(sums[i] - sums[j]) for i, j in pairs]
    return [
        Pair(names[i], names[j], int(only[i, j]), int(only[j, i]), p, adjusted)
        for (i, j), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    ]


def compare_with_best(correct: Mapping[str, BoolArray], units: IntArray | None = None) -> dict[str, tuple[float, bool]]:
    """Return {name: (Holm-adjusted p against the best head, tied with the best)} for right answers bool (N,) per head.

    units (N,): as in `compare_pairs`.

    The best head has most right answers, the first named of equals; it has p 1.0 and is tied with itself. A head is
    tied when its p, adjusted for all pairs of heads, is above 0.05.
    """
    return against(best_of(correct), list(correct), compare_pairs(correct, units)) if correct else {}


def against(best: str, names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, tuple[float, bool]]:
    """Return {name: (Holm-adjusted p against the best head, tied with the best)} from all pairs of heads."""
    adjusted = {best: 1.0}
    for pair in pairs:
        if best in (pair.a, pair.b):
            adjusted[pair.b if pair.a == best else pair.a] = pair.p_holm
    return {name: (adjusted[name], adjusted[name] > SIGNIFICANCE) for name in names}


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
