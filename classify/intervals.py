"""95 % intervals of metrics, from their bootstrap replicates; each kind of metric by the rule that covers best.

Plain percentiles cover too rarely where a share is near 1 or a loss is skewed, and say "no uncertainty" where no image
was wrong. So the bootstrap gives the variance v of a metric m, and

    shares        Wilson's interval of m out of n_e = m (1 - m) / v images, the number that would give this variance
                  (Kish 1965; Korn and Graubard 1998, for shares from complex samples)
    losses        m exp(± z s / m), s^2 = v: normal on the scale of the logarithm, so never below zero
    ece           an average of absolute values is too large by nature: see `calibration_error_interval`
    differences   the percentiles of the paired replicates (Efron 1979), see `difference_interval`
"""

from collections.abc import Mapping

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.metrics import Z_95, share_interval

LEVEL = 0.95
# Metrics that are one share of the images: their effective number is the number of images itself.
PLAIN_SHARES = ("accuracy", "top5_accuracy")
LOSSES = ("log_loss", "brier")
# An absolute value whose mean is zero is too large by b in a sample and by sqrt(2) b in a resample of it.
BIAS_OF_ALL = 1 / (np.sqrt(2.0) - 1)

Interval = tuple[float, float]


def intervals(
    estimates: Mapping[str, float], replicates: Mapping[str, FloatArray], support: IntArray
) -> dict[str, Interval]:
    """Return the 95 % interval of every metric of one head.

    estimates: `metrics.score_fully` of it; replicates: its part of `resampling.bootstrap`, (B,) each; support (C,):
    test images by class.
    """
    found: dict[str, Interval] = {}
    for name, estimate in estimates.items():
        if name == "ece":
            found[name] = calibration_error_interval(estimate, replicates[name], replicates["ece_if_calibrated"])
        elif name in LOSSES:
            found[name] = loss_interval(estimate, replicates[name])
        else:
            found[name] = share_interval(estimate, _effective_number(name, estimate, replicates[name], support))
    return found


def _effective_number(name: str, estimate: float, replicates: FloatArray, support: IntArray) -> float:
    """Return n_e = m (1 - m) / v; where the replicates do not vary, that of a mean over classes that weigh the same."""
    there = support[support > 0]
    variance = float(np.var(replicates))
    if name in PLAIN_SHARES:
        return float(there.sum())
    if variance == 0.0 or not 0.0 < estimate < 1.0:
        return float(len(there) ** 2 / np.sum(1.0 / there))
    return estimate * (1.0 - estimate) / variance


def loss_interval(loss: float, replicates: FloatArray) -> Interval:
    """Return the 95 % interval of a mean loss > 0 from its replicates (B,), normal on the scale of the logarithm."""
    if loss <= 0.0:
        return 0.0, float(np.quantile(replicates, (1 + LEVEL) / 2))
    factor = float(np.exp(Z_95 * np.std(replicates) / loss))
    return loss / factor, loss * factor


def calibration_error_interval(error: float, replicates: FloatArray, if_calibrated: FloatArray) -> Interval:
    """Return the 95 % interval of an expected calibration error from its replicates (B,).

    Chance gaps in the bins never cancel, so the error is too large, by b or more, b the replicates' mean minus it: the
    upper end is lowered by b, the lower end by b / (sqrt(2) - 1), what b comes to without any true gap. The lower end
    is 0 where perfect calibration would show as large an error (`if_calibrated` (B,), 95 %; Bröcker and Smith 2007).
    """
    bias, half = max(float(np.mean(replicates)) - error, 0.0), Z_95 * float(np.std(replicates))
    calibrated = error <= float(np.quantile(if_calibrated, LEVEL))
    low = 0.0 if calibrated else max(0.0, error - bias * float(BIAS_OF_ALL) - half)
    return low, min(1.0, max(error - bias, 0.0) + half)


def difference_interval(replicates_a: FloatArray, replicates_b: FloatArray) -> Interval:
    """Return the 95 % percentile interval of metric(a) - metric(b) from replicates (B,) of one shared resampling."""
    low, high = np.quantile(replicates_a - replicates_b, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
