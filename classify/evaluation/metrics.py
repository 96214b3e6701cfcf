"""Metrics of predictions, a table of metrics by class, and the interval of a share.

N samples, C classes, y_i the true class of sample i, p_ic its predicted probability of class c.
"""

from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.evaluation.clustered import effective_number

# Log loss is infinite where the true class got probability 0; scikit-learn clips at the machine epsilon too.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
# Guo et al. 2017 use 15 bins.
ECE_BINS = 15
# Top-5 accuracy is 1 by definition where there are no more than five classes.
TOP = 5
# The 0.975 quantile of the normal distribution: two-sided 95 %.
Z_95 = 1.959963984540054


class ClassRow(TypedDict):
    """Precision and recall of one class with their 95 % intervals; None where they are 0 / 0."""

    support: int
    precision: float | None
    precision_ci: list[float] | None
    recall: float | None
    recall_ci: list[float] | None


def score(y_true: IntArray, proba: FloatArray, y_pred: IntArray) -> dict[str, float]:
    """Return the metrics of predictions y_pred (N,) with probabilities proba (N, C); y are codes 0..C-1.

    Keys: accuracy, balanced_accuracy, macro_f1, log_loss (nats), ece, brier. Raises ValueError where the shapes
    disagree or there is no row.
    """
    y_true, y_pred, proba = np.asarray(y_true), np.asarray(y_pred), np.asarray(proba, dtype=np.float64)
    if len(y_true) == 0 or y_true.shape != y_pred.shape or proba.shape[:1] != y_true.shape:
        raise ValueError(
            f"y_true {y_true.shape}, proba {proba.shape} and y_pred {y_pred.shape} must have the same, non-zero length."
        )
    return {
        **{name: of_predictions(name, y_true, y_pred) for name in COUNT_METRICS},
        "log_loss": log_loss(y_true, proba),
        "ece": expected_calibration_error(y_true, proba, y_pred),
        "brier": brier(y_true, proba),
    }


def score_fully(y_true: IntArray, proba: FloatArray, y_pred: IntArray) -> dict[str, float]:
    """Return `score` and what is too slow for every setting of a sweep: auc, and top5_accuracy where C > 5.

    auc is left out where all samples have one class, since nothing can be ranked. Raises ValueError like `score`.
    """
    found = score(y_true, proba, y_pred)
    if proba.shape[1] > TOP:
        found["top5_accuracy"] = float(np.mean(in_top(y_true, proba)))
    if len(np.unique(y_true)) > 1:
        found["auc"] = one_vs_rest_auc(y_true, proba)
    return found


def score_by_class(y_true: IntArray, y_pred: IntArray, n_classes: int, units: IntArray | None = None) -> list[ClassRow]:
    """Return precision, recall and support of each class 0..C-1, with Wilson's intervals.

    precision_c = TP_c / (TP_c + FP_c), recall_c = TP_c / (TP_c + FN_c); None, interval too, where that is 0 / 0. units
    (N,): images of a unit are no independent evidence, see `classify.evaluation.clustered`.
    """
    hits, support, named = _counts(y_true, y_pred, n_classes)
    right = y_true == y_pred
    ends = [
        (_class_interval(right, y_pred == c, units), _class_interval(right, y_true == c, units))
        for c in range(n_classes if units is not None else 0)
    ]
    table: list[ClassRow] = []
    for c, (tp, n, p) in enumerate(zip(hits.tolist(), support.tolist(), named.tolist(), strict=True)):
        of_precision, of_recall = ends[c] if ends else (None, None)
        (precision, precision_ci), (recall, recall_ci) = _share(tp, p, of_precision), _share(tp, n, of_recall)
        table.append(
            {
                "support": n,
                "precision": precision,
                "precision_ci": precision_ci,
                "recall": recall,
                "recall_ci": recall_ci,
            }
        )
    return table


def _class_interval(right: BoolArray, rows: BoolArray, units: IntArray | None) -> tuple[float, float] | None:
    """Return the interval of the share of right answers among some rows; None where there are none."""
    return answers_interval(right[rows], None if units is None else units[rows]) if rows.any() else None


def _share(part: int, whole: int, ends: tuple[float, float] | None) -> tuple[float | None, list[float] | None]:
    """Return part / whole and its interval, or None twice where the whole is 0."""
    return (part / whole, list(ends or accuracy_interval(part, whole))) if whole else (None, None)


def _counts(y_true: IntArray, y_pred: IntArray, n_classes: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return TP, TP + FN and TP + FP of each class, (C,) each."""
    hits = np.bincount(y_true[y_true == y_pred], minlength=n_classes)
    return hits, np.bincount(y_true, minlength=n_classes), np.bincount(y_pred, minlength=n_classes)


def accuracy(hits: AnyArray, support: AnyArray, named: AnyArray) -> FloatArray:
    """Share of right answers: sum_c TP_c / N."""
    return np.asarray(hits.sum(axis=0) / support.sum(axis=0))


def balanced_accuracy(hits: AnyArray, support: AnyArray, named: AnyArray) -> FloatArray:
    """Mean recall over the classes that occur in y_true (Brodersen et al. 2010): (1 / C) sum_c TP_c / (TP_c + FN_c)."""
    return _mean_share(hits, support)


def macro_f1(hits: AnyArray, support: AnyArray, named: AnyArray) -> FloatArray:
    """Mean F1 over the classes that occur in y_true or in y_pred (van Rijsbergen 1979; scikit-learn's average="macro").

    F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c)
    """
    return _mean_share(2 * hits, support + named)


def _mean_share(part: AnyArray, whole: AnyArray) -> FloatArray:
    """Return the mean over the classes of part / whole, (C, ...) each, without those where the whole is 0."""
    there = whole > 0
    share = np.divide(part, whole, out=np.zeros(part.shape, np.result_type(part, np.float32)), where=there)
    return np.asarray(share.sum(axis=0) / there.sum(axis=0))


# Metrics that follow from the counts of each class, by their names in `criteria`: functions of TP_c, TP_c + FN_c and
# TP_c + FP_c, (C,) or (C, B) each, for one data set or for B of them.
COUNT_METRICS: Mapping[str, Callable[[AnyArray, AnyArray, AnyArray], FloatArray]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}


def of_predictions(metric: str, y_true: IntArray, y_pred: IntArray) -> float:
    """Return one of `COUNT_METRICS` of predictions y_pred (N,); y are codes. Raises KeyError for another metric."""
    return float(COUNT_METRICS[metric](*_counts(y_true, y_pred, int(max(y_true.max(), y_pred.max())) + 1)))


def log_loss(y_true: IntArray, proba: FloatArray) -> float:
    """Mean of -ln p_{i, y_i}, probabilities clipped from below at the epsilon of float32 (Good 1952)."""
    return float(log_losses(y_true, proba).mean() + 0.0)  # never -0.0


def log_losses(y_true: IntArray, proba: FloatArray) -> FloatArray:
    """Return the term of each sample in `log_loss`, (N,)."""
    return np.asarray(-np.log(np.clip(proba[np.arange(len(y_true)), y_true], SMALLEST_PROBABILITY, 1.0)))


def expected_calibration_error(y_true: IntArray, proba: FloatArray, y_pred: IntArray) -> float:
    """Mean distance between confidence and accuracy over 15 bins of equal width (Guo et al. 2017, equation 3).

    sum_b (n_b / N) |accuracy of bin b - mean confidence of bin b|, where the confidence is the probability of y_pred
    and bin b holds the confidences in (b / 15, (b + 1) / 15].
    """
    confidence = proba[np.arange(len(y_pred)), y_pred]
    bins = confidence_bins(confidence)
    gap = np.bincount(bins, weights=(y_true == y_pred) - confidence, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(y_true))


def confidence_bins(confidence: FloatArray) -> IntArray:
    """Return the bin 0..14 of each confidence (N,)."""
    return np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)


def brier(y_true: IntArray, proba: FloatArray) -> float:
    """Mean squared distance of the probabilities from the truth, 0 to 2 (Brier 1950, equation 2).

    (1 / N) sum_i sum_c (p_ic - [y_i = c])^2
    """
    return float(briers(y_true, proba).mean())


def briers(y_true: IntArray, proba: FloatArray) -> FloatArray:
    """Return the term of each sample in `brier`, (N,): sum_c (p_ic - [y_i = c])^2."""
    distance = np.array(proba, dtype=np.float64)
    distance[np.arange(len(y_true)), y_true] -= 1.0
    return np.asarray((distance**2).sum(axis=1))


def in_top(y_true: IntArray, proba: FloatArray) -> FloatArray:
    """Return 1.0 where the true class is among the five most probable, (N,); equals are ordered as argmax does."""
    of_true = proba[np.arange(len(y_true)), y_true][:, None]
    first = (proba == of_true) & (np.arange(proba.shape[1]) < np.asarray(y_true)[:, None])
    return np.asarray(((proba > of_true) | first).sum(axis=1) < TOP, dtype=np.float64)


def one_vs_rest_auc(y_true: IntArray, proba: FloatArray) -> float:
    """Mean over the classes that occur of the chance that p_c ranks a sample of c above another (Hanley, McNeil 1982).

    AUC_c = U_c / (n_c (N - n_c)) with U_c the pairs of a sample of c and another that p_c puts in order, a tie as half
    (Mann and Whitney 1947). Raises ValueError for fewer than two classes in y_true.
    """
    classes, n = np.unique(y_true, return_counts=True)
    if len(classes) < 2:
        raise ValueError("The samples have one class: nothing can be ranked above another.")
    pairs = []
    for c in classes:
        inside, scores = y_true == c, proba[:, c]
        pairs.append(twice_below(scores[inside], scores[~inside]).sum() / 2)
    return float(np.mean(np.array(pairs) / (n * (len(y_true) - n))))


def twice_below(scores: FloatArray, others: FloatArray) -> IntArray:
    """Return for each of scores (n,) twice the number of others (m,) that are smaller; an equal one counts half."""
    ordered = np.sort(others)
    return np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")


def accuracy_interval(n_correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of n_correct right answers out of n (Wilson 1927; Brown et al. 2001).

    (p + z^2 / 2n  ±  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),  p = n_correct / n,  z = 1.96

    Raises ValueError unless 0 <= n_correct <= n and n > 0.
    """
    if not 0 <= n_correct <= n or n == 0:
        raise ValueError(f"{n_correct} right answers out of {n}: need 0 <= n_correct <= n and n > 0.")
    return share_interval(n_correct / n, n)


def answers_interval(correct: BoolArray, units: IntArray | None = None) -> tuple[float, float]:
    """Return the 95 % interval of the share of right answers, bool (N,), of images in units (N,), 0..U-1.

    Wilson's, out of the effective number of images (`classify.evaluation.clustered`); out of N where every image is its
    own unit.
    """
    return share_interval(float(np.mean(correct)), effective_number(correct, units))


def share_interval(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n >= 0 images, which need not be a whole number: 0 to 1 for none."""
    if n == 0:
        return 0.0, 1.0
    z2 = Z_95**2
    half = Z_95 * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)))
    centre, width = share + z2 / (2 * n), 1 + z2 / n
    return max(0.0, (centre - half) / width), min(1.0, (centre + half) / width)
