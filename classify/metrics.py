"""What is said about predictions: six numbers and an interval.

N samples, C classes, y_i the true class of sample i, p_ic its predicted probability of class c.
"""

import numpy as np

from classify.arrays import FloatArray, IntArray

# Log loss is infinite where the true class got probability 0; scikit-learn clips at the machine epsilon too.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
# Guo et al. 2017 use 15 bins.
ECE_BINS = 15
# The 0.975 quantile of the normal distribution: two-sided 95 %.
Z_95 = 1.959963984540054


def score(y_true: IntArray, proba: FloatArray, y_pred: IntArray) -> dict[str, float]:
    """Return all metrics of predictions y_pred (N,) with probabilities proba (N, C); y are codes 0..C-1.

    Keys: accuracy, balanced_accuracy, macro_f1, log_loss (nats), ece, brier. Raises ValueError where the shapes
    disagree or there is no row.
    """
    y_true, y_pred, proba = np.asarray(y_true), np.asarray(y_pred), np.asarray(proba, dtype=np.float64)
    if len(y_true) == 0 or y_true.shape != y_pred.shape or proba.shape[:1] != y_true.shape:
        raise ValueError(
            f"y_true {y_true.shape}, proba {proba.shape} and y_pred {y_pred.shape} must have the same, non-zero length."
        )
    return {
        "accuracy": float(np.mean(y_true == y_pred)),
        "balanced_accuracy": balanced_accuracy(y_true, y_pred),
        "macro_f1": macro_f1(y_true, y_pred),
        "log_loss": log_loss(y_true, proba),
        "ece": expected_calibration_error(y_true, proba, y_pred),
        "brier": brier(y_true, proba),
    }


def balanced_accuracy(y_true: IntArray, y_pred: IntArray) -> float:
    """Mean recall over the classes that occur in y_true (Brodersen et al. 2010).

    (1 / C) sum_c TP_c / (TP_c + FN_c)
    """
    return float(np.mean([np.mean(y_pred[y_true == c] == c) for c in np.unique(y_true)]))


def macro_f1(y_true: IntArray, y_pred: IntArray) -> float:
    """Mean F1 over the classes that occur in y_true or in y_pred (van Rijsbergen 1979; scikit-learn's average="macro").

    F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c)
    """
    classes = np.union1d(y_true, y_pred)
    hits = [2 * np.sum((y_true == c) & (y_pred == c)) / (np.sum(y_true == c) + np.sum(y_pred == c)) for c in classes]
    return float(np.mean(hits))


def log_loss(y_true: IntArray, proba: FloatArray) -> float:
    """Mean of -ln p_{i, y_i}, probabilities clipped from below at the epsilon of float32 (Good 1952)."""
    true_class = proba[np.arange(len(y_true)), y_true]
    return float(-np.log(np.clip(true_class, SMALLEST_PROBABILITY, 1.0)).mean() + 0.0)  # never -0.0


def expected_calibration_error(y_true: IntArray, proba: FloatArray, y_pred: IntArray) -> float:
    """Mean distance between confidence and accuracy over 15 bins of equal width (Guo et al. 2017, equation 3).

    sum_b (n_b / N) |accuracy of bin b - mean confidence of bin b|, where the confidence is the probability of y_pred
    and bin b holds the confidences in (b / 15, (b + 1) / 15].
    """
    confidence = proba[np.arange(len(y_pred)), y_pred]
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = np.bincount(bins, weights=(y_true == y_pred) - confidence, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(y_true))


def brier(y_true: IntArray, proba: FloatArray) -> float:
    """Mean squared distance of the probabilities from the truth, 0 to 2 (Brier 1950, equation 2).

    (1 / N) sum_i sum_c (p_ic - [y_i = c])^2
    """
    truth = np.zeros_like(proba)
    truth[np.arange(len(y_true)), y_true] = 1.0
    return float(((proba - truth) ** 2).sum(axis=1).mean())


def accuracy_interval(n_correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of n_correct right answers out of n (Wilson 1927; Brown et al. 2001).

    (p + z^2 / 2n  ±  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),  p = n_correct / n,  z = 1.96

    Raises ValueError unless 0 <= n_correct <= n and n > 0.
    """
    if not 0 <= n_correct <= n or n == 0:
        raise ValueError(f"{n_correct} right answers out of {n}: need 0 <= n_correct <= n and n > 0.")
    p, z2 = n_correct / n, Z_95**2
    half = Z_95 * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)))
    centre, width = p + z2 / (2 * n), 1 + z2 / n
    return max(0.0, (centre - half) / width), min(1.0, (centre + half) / width)
