"""From scores to probabilities: softmax, and the one number that makes scores honest.

Temperature scaling: p = softmax(s / T), with T > 0 the minimiser of the log loss on rows the head was not trained on.
It changes no prediction (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2).
"""

import numpy as np

from classify.arrays import FloatArray, IntArray

# exp(-7) .. exp(7): beyond a factor of a thousand the scores are noise and the optimum runs away.
LOG_TEMPERATURE_BOUNDS = (-7.0, 7.0)


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
    """
    from scipy.optimize import minimize_scalar

    scores, rows = scores.astype(np.float64), np.arange(len(y))

    def log_loss(log_temperature: float) -> float:
        log_proba = log_softmax(scores / np.exp(log_temperature))
        return -float(log_proba[rows, y].sum() + log_proba.mean()) / (len(y) + 1)

    found = minimize_scalar(log_loss, bounds=LOG_TEMPERATURE_BOUNDS, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))
