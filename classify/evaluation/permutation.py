"""Paired permutation tests of metrics that are no count of right answers: the answers of two heads change places.

If two heads are equally good, what each said about a unit (an image, or all images of a group or copies) might as well
have been said by the other (Fisher 1935, "The Design of Experiments", section 21; for metrics of classifiers Noreen
1989, "Computer-Intensive Methods for Testing Hypotheses", and Yeh 2000, "More accurate tests for the statistical
significance of result differences"). With m the difference of the metric and m_b that after units have changed places
at random, each with probability 1/2,

    p = (1 + #{b: |m_b| >= |m|}) / (1 + B)

is below any level at most as often as that says, for every B (Phipson and Smyth 2010, "Permutation P-values Should
Never Be Zero"). Where the units that differ are few, all 2^U exchanges are counted instead, and p is their share.

Log loss and balanced accuracy are sums over units, so all pairs of heads are one matrix product with the random signs;
other metrics, such as macro F1, need the counts of each class after each exchange. All pairs see the same exchanges.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.evaluation.metrics import COUNT_METRICS, of_predictions

# The least p-value is then 1e-4, which Holm's correction for the 36 pairs of nine heads leaves below 0.4 %.
N_EXCHANGES = 9999
# All exchanges of so few units are fewer than that.
MOST_ALL = 13
# Exchanges times units that are in memory at a time: 32 MB of float64.
BLOCK = 1 << 22
# Differences this near to the observed one, relatively, count as equal to it.
NEAR = 1e-9

Pairs = Sequence[tuple[int, int]]
CountMetric = Callable[[AnyArray, AnyArray, AnyArray], FloatArray]
# Metrics that are sums of terms of the images.
SUMS = ("log_loss", "balanced_accuracy")


@dataclass(frozen=True)
class Answers:
    """What one head said about N images: predicted codes (N,), and losses (N,), -ln p of the true class."""

    predicted: IntArray
    losses: FloatArray

    def value(self, metric: str, y_true: IntArray) -> float:
        """Return the log loss or one of `metrics.COUNT_METRICS` for codes y_true (N,). Raises KeyError for others."""
        if metric == "log_loss":
            return float(self.losses.mean() + 0.0)
        return of_predictions(metric, y_true, self.predicted)


def permutation_tests(
    metric: str,
    y_true: IntArray,
    answers: Sequence[Answers],
    pairs: Pairs,
    *,
    units: IntArray | None = None,
    seed: int = 0,
) -> list[float]:
    """Return the two-sided p-value that two heads have the same metric, for pairs (P,) of places in answers.

    metric: log_loss or one of `metrics.COUNT_METRICS`; y_true (N,): codes; units (N,): images that change places
    together. Raises KeyError for another metric.
    """
    own = np.arange(len(y_true)) if units is None else np.unique(units, return_inverse=True)[1].ravel()
    if metric in SUMS:
        return _tests_of_sums(_terms(metric, y_true, answers), pairs, own, seed)
    return _tests_of_counts(COUNT_METRICS[metric], y_true, answers, pairs, own, seed)


def _terms(metric: str, y_true: IntArray, answers: Sequence[Answers]) -> FloatArray:
    """Return terms (H, N) whose sums over images are the metric, one of `SUMS`."""
    if metric == "log_loss":
        return np.stack([each.losses for each in answers]).astype(np.float64) / len(y_true)
    _, codes, support = np.unique(y_true, return_inverse=True, return_counts=True)
    weight = 1.0 / (len(support) * support[codes.ravel()])
    return np.stack([(each.predicted == y_true) * weight for each in answers])


def _tests_of_sums(terms: FloatArray, pairs: Pairs, units: IntArray, seed: int) -> list[float]:
    sums = np.stack([np.bincount(units, weights=row) for row in terms], axis=1)
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    differences = sums[:, a] - sums[:, b]
    scale = np.abs(differences).sum(axis=0)
    differences[np.abs(differences) <= NEAR * scale] = 0.0
    observed = differences.sum(axis=0)
    least = np.abs(observed) - NEAR * scale
    n_as_large = np.zeros(len(observed))
    for exchanged in _exchanges(len(differences), seed):
        n_as_large += (np.abs(observed - 2.0 * (exchanged @ differences)) >= least).sum(axis=0)
    found = (1.0 + n_as_large) / (1.0 + N_EXCHANGES)
    for place, column in enumerate(differences.T):
        some = column[column != 0.0]
        if len(some) <= MOST_ALL:
            found[place] = np.mean(np.abs(some.sum() - 2.0 * (_all_exchanges(len(some)) @ some)) >= least[place])
    return [float(p) for p in found]


def _tests_of_counts(
    value: CountMetric, y_true: IntArray, answers: Sequence[Answers], pairs: Pairs, units: IntArray, seed: int
) -> list[float]:
    n_classes = int(max(y_true.max(), *(each.predicted.max() for each in answers))) + 1
    support = np.bincount(y_true, minlength=n_classes)
    tests = [_CountTest(value, y_true, answers[a].predicted, answers[b].predicted, units, support) for a, b in pairs]
    found = [each.p_of_all() if len(each.differing) <= MOST_ALL else None for each in tests]
    left = [each for each, p in zip(tests, found, strict=True) if p is None]
    n_as_large = np.zeros(len(left))
    for exchanged in _exchanges(int(units.max()) + 1, seed) if left else ():
        n_as_large += [each.n_as_large(exchanged[:, each.differing]) for each in left]
    drawn = iter((1.0 + n_as_large) / (1.0 + N_EXCHANGES))
    return [float(next(drawn)) if p is None else p for p in found]


class _CountTest:
    """A metric of two heads after some of the units on which they differ have changed places."""

    def __init__(
        self, value: CountMetric, y_true: IntArray, a: IntArray, b: IntArray, units: IntArray, support: IntArray
    ) -> None:
        from scipy.sparse import csr_array

        n_classes, other = len(support), a != b
        self.differing = np.unique(units[other])
        place = np.searchsorted(self.differing, units[other])
        shape = (len(self.differing), n_classes)

        def counted(codes: IntArray, of: BoolArray | slice = slice(None)) -> AnyArray:
            found: AnyArray = csr_array((np.ones(len(codes[of])), (place[of], codes[of])), shape=shape)
            return found

        truth, ours, theirs = y_true[other], a[other], b[other]
        self.hits = counted(theirs, theirs == truth) - counted(ours, ours == truth)
        self.named = counted(theirs) - counted(ours)
        self.value, self.support = value, support[:, None]
        self.of_a, self.of_b = (
            (np.bincount(each[each == y_true], minlength=n_classes), np.bincount(each, minlength=n_classes))
            for each in (a, b)
        )
        self.least = abs(float(self._differences(np.zeros((1, shape[0])))[0])) - NEAR

    def _differences(self, exchanged: FloatArray) -> FloatArray:
        """Return the metric of a minus that of b after exchanges, 0 or 1, (B, U): (B,)."""
        hits, named = exchanged @ self.hits, exchanged @ self.named
        of_a = self.value((self.of_a[0] + hits).T, self.support, (self.of_a[1] + named).T)
        return of_a - self.value((self.of_b[0] - hits).T, self.support, (self.of_b[1] - named).T)

    def n_as_large(self, exchanged: FloatArray) -> int:
        """Return how many of the exchanges (B, U) make the difference as large as it is, or larger."""
        return int((np.abs(self._differences(exchanged)) >= self.least).sum())

    def p_of_all(self) -> float:
        """Return the exact p-value, of all exchanges of the units."""
        exchanged = _all_exchanges(len(self.differing))
        return self.n_as_large(exchanged) / len(exchanged)


def _exchanges(n_units: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks (B, U) of 0 and 1: which units change places in each of `N_EXCHANGES` exchanges."""
    rng = np.random.default_rng(seed)
    size = max(1, BLOCK // max(n_units, 1))
    for start in range(0, N_EXCHANGES, size):
        n = min(size, N_EXCHANGES - start)
        bits = np.unpackbits(np.frombuffer(rng.bytes((n * n_units + 7) // 8), dtype=np.uint8), count=n * n_units)
        yield bits.reshape(n, n_units).astype(np.float64)


def _all_exchanges(n_units: int) -> FloatArray:
    """Return all exchanges of a few units, (2^U, U)."""
    numbers = np.arange(1 << n_units)[:, None]
    return np.asarray((numbers >> np.arange(n_units)) & 1, dtype=np.float64)
