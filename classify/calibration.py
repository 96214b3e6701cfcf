"""From scores to probabilities: softmax, and the one number that makes scores honest.

Temperature scaling: p = softmax(s / T), with T > 0 the minimiser of the log loss on rows the head was not trained on.
It changes no prediction (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2).

Two places use it. Heads whose scores are margins or distances have a temperature of their own, without which they had
no probabilities to speak of; a sweep fits it for every setting. Any head's probabilities can be tempered once more,
with s = log p, by what the chosen setting said about the held-out rows: `fit_tempering` and `temper`.
"""

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.metrics import SMALLEST_PROBABILITY, expected_calibration_error, log_loss

# exp(-7) .. exp(7): beyond a factor of a thousand the scores are noise and the optimum runs away.
LOG_TEMPERATURE_BOUNDS = (-7.0, 7.0)
# log T is found to this; a hundredth of it is not seen in any metric.
ACCURACY = 1e-4
MAX_STEPS = 100
SMALLEST_SPREAD = 1e-3


def softmax(scores: FloatArray) -> FloatArray:
    """Return exp(s_c) / sum_c' exp(s_c') for every row of scores (N, C)."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def log_softmax(scores: FloatArray) -> FloatArray:
    """Return the logarithm of `softmax`, without ever taking the logarithm of zero."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def two_columns(scores: FloatArray) -> FloatArray:
    """Give binary scores (N,), positive for the second class, their two columns (0, s); leave (N, C) as it is."""
    if scores.ndim == 2:
        return scores
    return np.column_stack([np.zeros_like(scores), scores])


def fit_temperature(scores: FloatArray, y: IntArray) -> float:
    """Return the T that minimises the log loss of softmax(scores / T), for scores (N, C) and codes y (N,).

    One more row, whose class nobody knows, is mixed into the loss: without a single error among N rows the best
    temperature would be 0, a certainty that N rows cannot give (Platt 1999 smooths his targets for the same reason).

        minimise  -(1 / (N + 1)) (sum_i log p_{i, y_i} + mean_ic log p_ic),     p = softmax(s / T)

    The loss is convex in 1 / T: Newton's method there, halving (in log T) where a step leaves the bracket. Without
    a row it is 1.
    """
    if not len(y):
        return 1.0
    N, rows = len(y), np.arange(len(y))
    scores = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    right, share = float(scores[rows, y].sum() + scores.mean()), 1.0 + 1.0 / N
    low, high = (float(np.exp(-bound)) for bound in reversed(LOG_TEMPERATURE_BOUNDS))
    sharpness = 1.0 / max(float(scores.std()), SMALLEST_SPREAD)
    for _ in range(MAX_STEPS):
        sharpness = min(max(sharpness, low), high)
        slope, curvature = _sharpened(scores, sharpness)
        slope = share * slope - right
        low, high = (low, sharpness) if slope > 0 else (sharpness, high)
        wanted = sharpness - slope / (share * curvature) if curvature > 0 else -1.0
        if not low < wanted < high:
            wanted = float(np.sqrt(low * high))
        if abs(np.log(wanted / sharpness)) < ACCURACY:
            break
        sharpness = wanted
    return 1.0 / wanted


def _sharpened(scores: FloatArray, sharpness: float) -> tuple[float, float]:
    """Return the sums over the rows of scores (N, C) of their mean and variance under softmax(sharpness scores)."""
    weights = np.exp(sharpness * scores)
    total = weights.sum(axis=1)
    weights *= scores
    mean = weights.sum(axis=1) / total
    weights *= scores
    return float(mean.sum()), float((weights.sum(axis=1) / total - mean**2).sum())


def fit_tempering(proba: FloatArray, y: IntArray) -> float:
    """Return the T for `temper` that suits probabilities (N, C) of held-out rows with the codes y (N,)."""
    return fit_temperature(_log(proba), y)


def temper(proba: FloatArray, temperature: float) -> FloatArray:
    """Return p^(1 / T) / sum_c p_c^(1 / T) for every row of probabilities (N, C).

    T > 1 makes them more cautious, T < 1 bolder. Zeros count as the smallest probability that log loss knows.
    """
    return proba if temperature == 1.0 else softmax(_log(proba) / temperature)


def _log(proba: FloatArray) -> FloatArray:
    return np.asarray(np.log(np.maximum(proba, SMALLEST_PROBABILITY)))


def tempering_effect(y_true: IntArray, proba: FloatArray, y_pred: IntArray, temperature: float) -> dict[str, float]:
    """Return what tempering probabilities (N, C) does to the log loss and the calibration error on codes y_true (N,).

    Keys: temperature, log_loss_before, log_loss_after, ece_before, ece_after.
    """
    after = temper(proba, temperature)
    return {
        "temperature": temperature,
        "log_loss_before": log_loss(y_true, proba),
        "log_loss_after": log_loss(y_true, after),
        "ece_before": expected_calibration_error(y_true, proba, y_pred),
        "ece_after": expected_calibration_error(y_true, after, y_pred),
    }
