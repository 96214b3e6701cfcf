"""95 % intervals of metrics, from their bootstrap replicates; each kind of metric by the rule that covers best.

Plain percentiles cover too rarely where a share is near 1 or a loss is skewed, and say "no uncertainty" where no image
was wrong. So the bootstrap gives the variance v of a metric m, and

    shares        Wilson's interval of m out of n_e = m (1 - m) / v images, the number that would give this variance
                  (Kish 1965; Korn and Graubard 1998, for shares from complex samples)
    losses        m exp(± z s / m), s^2 = v: normal on the scale of the logarithm, so never below zero
    ece           an average of absolute values is too large by nature: see `calibration_error_interval`
    differences   Tango's score interval for paired shares, see `difference_interval`

Where images come in units (groups, copies) the replicates resample units, v grows by `clustered.widening`, and accuracy
and differences have their n_e from `clustered.effective_number`.
"""

from collections.abc import Callable, Mapping

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.evaluation.clustered import are_own, effective_number, kish_number, student_factor, widening
from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY, Z_95, answers_interval, share_interval
from featurecache.classify.evaluation.units import count_units

LEVEL = 0.95
# Metrics that are one share of the images: their effective number is the number of images itself.
PLAIN_SHARES = ("accuracy", "top5_accuracy")
# Mean losses, and the largest that one image can have.
LOSSES = {"log_loss": -float(np.log(SMALLEST_PROBABILITY)), "brier": 2.0}
# An absolute value whose mean is zero is too large by b in a sample and by sqrt(2) b in a resample of it.
BIAS_OF_ALL = 1 / (np.sqrt(2.0) - 1)
# Halvings of [-1, 1] in the search for an end of an interval: 2^-50 is below what a double holds near 1.
N_HALVINGS = 50

Interval = tuple[float, float]


def intervals(
    estimates: Mapping[str, float],
    replicates: Mapping[str, FloatArray],
    y_true: IntArray,
    y_pred: IntArray,
    *,
    units: IntArray | None = None,
) -> dict[str, Interval]:
    """Return the 95 % interval of every metric of one head.

    estimates: `metrics.score_fully` of it; replicates: its part of `bootstrap.bootstrap`, (B,) each, of images or of
    the units (N,), 0..U-1; y_true, y_pred (N,): codes.
    """
    found: dict[str, Interval] = {}
    wider = widening(units)
    for name, estimate in estimates.items():
        if name == "accuracy":
            found[name] = answers_interval(y_true == y_pred, units)
        elif name == "ece":
            found[name] = calibration_error_interval(estimate, replicates[name], replicates["ece_if_calibrated"], wider)
        elif name in LOSSES:
            found[name] = loss_interval(estimate, replicates[name], widening=wider, largest=LOSSES[name])
        else:
            found[name] = share_interval(
                estimate, _share_number(name, estimate, replicates[name], y_true, y_pred, units)
            )
    return found


def _share_number(
    name: str, estimate: float, replicates: FloatArray, y_true: IntArray, y_pred: IntArray, units: IntArray | None
) -> float:
    """Return n_e = m (1 - m) / v; where the replicates do not vary, that of a mean over classes that weigh the same."""
    if name in PLAIN_SHARES and are_own(units):
        return float(len(y_true))
    support = np.bincount(y_true)
    variance = float(np.var(replicates))
    if variance == 0.0 or not 0.0 < estimate < 1.0:
        there = support[support > 0]
        if are_own(units):
            return float(len(there) ** 2 / np.sum(1.0 / there))
        equal = name in PLAIN_SHARES
        return kish_number(np.full(len(y_true), 1 / len(y_true)) if equal else 1 / support[y_true] / len(there), units)
    if name == "balanced_accuracy":
        lonely = _recall_variance(y_true, y_pred, units)
        if lonely is not None:
            factor = 1.0
            if units is not None and not are_own(units):
                factor = student_factor(len(np.unique(units)), len(y_true))
            return factor * estimate * (1.0 - estimate) / lonely
    return estimate * (1.0 - estimate) / (variance * widening(units))


def _recall_variance(y_true: IntArray, y_pred: IntArray, units: IntArray | None) -> float | None:
    """Return the variance of the mean recall where a class has a single unit, which a resample lacks or has whole.

    Over the C classes with U_c units, p_c their recalls and m their mean: a class of one unit varies as a share m does,

        v = (sum_u (sum_{i in u} z_i)^2 + #{c: U_c = 1} m (1 - m)) / C^2,
        z_i = (x_i - p_c) / n_c sqrt(U_c / (U_c - 1)),   x_i = 1 for a right answer

    None where every class has several units: then the bootstrap knows.
    """
    own = np.arange(len(y_true)) if units is None else units
    support = np.bincount(y_true)
    n_units = count_units(own, y_true, len(support))
    alone = n_units == 1
    if not alone.any():
        return None
    right = (y_true == y_pred).astype(np.float64)
    recall = np.bincount(y_true, weights=right) / np.maximum(support, 1)
    mean = float(recall[support > 0].mean())
    stretch = np.sqrt(n_units / np.maximum(n_units - 1, 1)) / np.maximum(support, 1)
    z = np.where(alone[y_true], 0.0, (right - recall[y_true]) * stretch[y_true])
    v = float(np.sum(np.bincount(own, weights=z) ** 2)) + int(alone.sum()) * mean * (1.0 - mean)
    return v / np.count_nonzero(support) ** 2


def loss_interval(loss: float, replicates: FloatArray, *, widening: float = 1.0, largest: float = np.inf) -> Interval:
    """Return the 95 % interval of a mean loss > 0 from its replicates (B,), normal on the scale of the logarithm.

    widening: by what their variance is too small; largest: what the loss can be at most.
    """
    if np.isinf(widening):
        return 0.0, largest
    if loss <= 0.0:
        return 0.0, float(np.quantile(replicates, (1 + LEVEL) / 2))
    with np.errstate(over="ignore"):
        factor = float(np.exp(Z_95 * np.sqrt(widening) * np.std(replicates) / loss))
    return loss / factor, min(loss * factor, largest)


def calibration_error_interval(
    error: float, replicates: FloatArray, if_calibrated: FloatArray, widening: float = 1.0
) -> Interval:
    """Return the 95 % interval of an expected calibration error from its replicates (B,).

    Chance gaps in the bins never cancel, so the error is too large, by b or more, b the replicates' mean minus it: the
    upper end is lowered by b, the lower end by b / (sqrt(2) - 1), what b comes to without any true gap. The lower end
    is 0 where perfect calibration would show as large an error (`if_calibrated` (B,), 95 %; Bröcker and Smith 2007).
    widening: by what the replicates' variance is too small.
    """
    if np.isinf(widening):
        return 0.0, 1.0
    wider = float(np.sqrt(widening))
    bias, half = max(float(np.mean(replicates)) - error, 0.0), Z_95 * wider * float(np.std(replicates))
    calibrated = error <= wider * float(np.quantile(if_calibrated, LEVEL))
    low = 0.0 if calibrated else max(0.0, error - bias * float(BIAS_OF_ALL) - half)
    return low, min(1.0, max(error - bias, 0.0) + half)


def difference_interval(correct_a: BoolArray, correct_b: BoolArray, units: IntArray | None = None) -> Interval:
    """Return the 95 % score interval of accuracy(a) - accuracy(b) from right answers, bool (N,) each, in units (N,).

    Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design": with shares p of images that only a got right and q that only b did, the interval holds every D with

        n (p - q - D)^2 <= z^2 (2 x + D (1 - D))

    x being the most likely q if the difference is D: 2 x^2 + ((2 - p + q) D - p - q) x - q D (1 - D) = 0, the larger
    root. Heads that agree on all n images have ± z^2 / (n + z^2). n is the effective number of the images' differences,
    which are -1, 0 or 1 (`classify.evaluation.clustered`).
    """
    differences = correct_a.astype(np.int64) - correct_b.astype(np.int64)
    n = effective_number(differences, units)
    if n == 0:
        return -1.0, 1.0
    p, q = float(np.mean(differences == 1)), float(np.mean(differences == -1))

    def is_inside(d: float) -> bool:
        b, c = (2 - p + q) * d - p - q, -q * d * (1 - d)
        likely = (np.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
        return bool(n * (p - q - d) ** 2 <= Z_95**2 * (2 * likely + d * (1 - d)))

    return _last_inside(is_inside, p - q, -1.0), _last_inside(is_inside, p - q, 1.0)


def _last_inside(is_inside: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return where a stretch from `inside` ends on the way to `outside`, by halving."""
    if is_inside(outside):
        return outside
    for _ in range(N_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_inside(middle) else (inside, middle)
    return inside
