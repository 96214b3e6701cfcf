"""Calibration: temperatures that turn scores into probabilities.

Temperature scaling: p = softmax(s / T), with T > 0 the minimiser of the log loss on rows the head was not trained on.
It changes no prediction (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2).

Two places use it. Heads whose scores are no log odds have a temperature of their own; a sweep fits it for every
setting. The probabilities of others can be tempered by a temperature fitted to the held-out rows of the chosen setting:
on their scores where they have some, else on s = log p (`temper_head`, `temper`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.softmax import BLOCK_NUMBERS, shifted_blocks, softmax, softmax_blocks, two_columns
from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY, expected_calibration_error, log_loss

# exp(-10) to exp(10) times the deviation of the scores: beyond, they are noise and there is no optimum. Relative to
# the scores, for those of naive Bayes grow with the number of columns, and those of ridge shrink with its penalty.
LOG_TEMPERATURE_BOUNDS = (-10.0, 10.0)
# log T is found to this accuracy, which changes no metric visibly.
ACCURACY = 1e-4
# After a step of Newton's method of this length in log T, no more than a few times its square is left.
LAST_STEP = ACCURACY**0.5 / 2
# The longest step up in log 1 / T: it leaves every bracket, and its exponential is a number.
LONGEST = 100.0
MAX_STEPS = 100
# Scores that deviate by less than this times their size are constant but for rounding.
ROUNDING = 16.0


class TemperatureFit(NamedTuple):
    """The best temperature for some rows.

    certainty: the second derivative of their summed log loss in log T. at_bound: the best one is outside the range that
    is searched.
    """

    temperature: float
    certainty: float
    at_bound: bool = False


# The fit to no rows.
NO_FIT = TemperatureFit(1.0, 0.0)


def fit_temperature(scores: FloatArray, y: IntArray) -> float:
    """Return the T that minimises the log loss of softmax(scores / T), for scores (N, C) and codes y (N,).

    See `find_temperature`.
    """
    return find_temperature(scores, y).temperature


def find_temperature(scores: FloatArray, y: IntArray, *, guess: float | None = None) -> TemperatureFit:
    """Return the T that minimises the log loss of softmax(scores / T), for scores (N, C) and codes y (N,).

    guess: where the search begins, such as the temperature of a similar setting.

    One more row, of unknown class, is mixed into the loss: without a single error among N rows the best
    temperature would be 0, a certainty that N rows cannot give (Platt 1999 smooths his targets for the same reason).

        minimise  -(1 / (N + 1)) (sum_i log p_{i, y_i} + mean_ic log p_ic),     p = softmax(s / T)

    The loss is convex in 1 / T: its slope is the mean score under p less that of the true classes. Newton's method on
    the logarithm of their ratio in log 1 / T, halving (in log T) where a step leaves the bracket. Scores that are
    multiplied by a number have that times the temperature. Without a row, or where all scores are equal, it is 1.
    """
    if not len(y):
        return NO_FIT
    right, spread = _right_and_spread(scores, y)
    shifted = _ByClass(scores)
    if spread <= ROUNDING * np.finfo(scores.dtype).eps * float(np.abs(scores).max()):
        return NO_FIT
    share = 1.0 + 1.0 / len(y)
    bounds = [float(np.exp(-bound)) / spread for bound in reversed(LOG_TEMPERATURE_BOUNDS)]
    low, high = bounds
    wanted = 1.0 / spread if guess is None else min(max(1.0 / guess, low), high)
    for _ in range(MAX_STEPS):
        sharpness = wanted
        mean, curvature = _sharpened(shifted, sharpness)
        low, high = (low, sharpness) if share * mean > right else (sharpness, high)
        # Both are below 0, and the logarithm of the mean is nearly linear in log 1 / T.
        step = np.log(share * mean / right) * mean / (sharpness * curvature) if mean < 0 < curvature else np.inf
        wanted = sharpness * float(np.exp(min(-step, LONGEST)))
        enough = LAST_STEP
        if not low < wanted < high:
            wanted, enough = float(np.sqrt(low * high)), ACCURACY
        if abs(np.log(wanted / sharpness)) < enough:
            break
    at_bound = bool(np.abs(np.log(np.array(bounds) / wanted)).min() < 10.0 * ACCURACY)
    return TemperatureFit(1.0 / wanted, share * curvature * wanted**2, at_bound)


def _right_and_spread(scores: FloatArray, y: IntArray) -> tuple[float, float]:
    """Return the sum of the scores (N, C) of the true classes y (N,) and of the unknown row, and their deviation.

    Scores are counted from the largest of their row.
    """
    right = total = squares = 0.0
    for rows, block in shifted_blocks(scores):
        right += float(block[np.arange(len(block)), y[rows]].sum())
        total += float(block.sum())
        squares += float(np.einsum("ij,ij->", block, block))
    mean = total / scores.size
    return right + mean, float(np.sqrt(max(squares / scores.size - mean**2, 0.0)))


class _ByClass:
    """Scores (N, C) less the largest of their row, as float64 blocks (C, B): sums over the first axis are quicker.

    One block is kept; several are made again for every pass over them.
    """

    def __init__(self, scores: FloatArray) -> None:
        self.scores = scores
        self.kept = list(self._blocks()) if scores.size <= BLOCK_NUMBERS else None

    def __iter__(self) -> Iterator[FloatArray]:
        return self._blocks() if self.kept is None else iter(self.kept)

    def _blocks(self) -> Iterator[FloatArray]:
        return (np.ascontiguousarray(block.T) for _, block in shifted_blocks(self.scores))


def _sharpened(scores: Iterable[FloatArray], sharpness: float) -> tuple[float, float]:
    """Return the sums over all rows of the mean and variance of their scores (C, B) under softmax(sharpness s)."""
    means = variances = 0.0
    for block in scores:
        weights = np.exp(sharpness * block)
        total = weights.sum(axis=0)
        weights *= block
        mean = weights.sum(axis=0) / total
        means += float(mean.sum())
        variances += float((np.einsum("ij,ij->j", weights, block) / total - mean**2).sum())
    return means, variances


def combine_temperatures(fits: Sequence[TemperatureFit]) -> float:
    """Return the temperature for the rows of several fits together: exp(sum_r w_r log T_r / sum_r w_r).

    w_r is the certainty of a fit. It minimises the sum of the log losses, each taken for the parabola in log T that
    touches it at its minimum (inverse-variance weighting); for one fit it is that fit's.
    """
    weights = np.array([fit.certainty for fit in fits])
    if not weights.sum() > 0:
        return 1.0
    return float(np.exp(weights @ np.log([fit.temperature for fit in fits]) / weights.sum()))


def fit_tempering(proba: FloatArray, y: IntArray) -> float:
    """Return the T for `temper` that suits probabilities (N, C) of held-out rows with the codes y (N,)."""
    return fit_temperature(log_proba(proba), y)


def temper(proba: FloatArray, temperature: float, *, floor: float = 0.0) -> FloatArray:
    """Return p^(1 / T) / sum_c p_c^(1 / T) for every row of probabilities (N, C).

    T > 1 makes them more cautious, T < 1 bolder. floor: see `log_proba`.
    """
    if temperature == 1.0:
        return proba
    found = np.empty_like(proba)
    size = max(1, BLOCK_NUMBERS // proba.shape[1])
    for start in range(0, len(proba), size):
        rows = slice(start, start + size)
        found[rows] = softmax(log_proba(proba[rows], floor=floor) / temperature)
    return found


def temper_head(head: Any, X: FloatArray, proba: FloatArray, temperature: float, *, floor: float = 0.0) -> FloatArray:
    """Return the probabilities (M, C) of a fitted head for X (M, D), given as proba, tempered by T.

    Where the head has scores it is those that are tempered, softmax(s / (T temperature)): none of them was rounded to
    zero. With a floor above 0 it is the probabilities.
    """
    if temperature == 1.0 or floor > 0.0 or not hasattr(head, "decision_function"):
        return temper(proba, temperature, floor=floor)
    found = np.empty_like(proba)
    for rows, block in softmax_blocks(two_columns(head.decision_function(X)), temperature * head.temperature):
        found[rows] = block
    return found


def log_proba(proba: FloatArray, *, floor: float = 0.0) -> FloatArray:
    """Return the logarithms (N, C) of probabilities (N, C), float64.

    A zero counts as the smallest other one of its row, or the smallest that log loss knows where that is less: a vote
    of some hundred trees has zeros that are no certainty. With a floor above 0 nothing counts for less than that.
    """
    wide = np.asarray(proba, dtype=np.float64)
    if floor > 0.0:
        return np.asarray(np.log(np.maximum(wide, floor)))
    least = np.where(wide > 0.0, wide, SMALLEST_PROBABILITY).min(axis=1, keepdims=True)
    return np.asarray(np.log(np.maximum(wide, np.minimum(least, SMALLEST_PROBABILITY))))


def tempering_effect(
    y_true: IntArray, before: FloatArray, after: FloatArray, y_pred: IntArray, temperature: float
) -> dict[str, float]:
    """Return what tempering does to the log loss and calibration error of probabilities (N, C) on codes y_true (N,).

    Keys: temperature, log_loss_before, log_loss_after, ece_before, ece_after.
    """
    return {
        "temperature": temperature,
        "log_loss_before": log_loss(y_true, before),
        "log_loss_after": log_loss(y_true, after),
        "ece_before": expected_calibration_error(y_true, before, y_pred),
        "ece_after": expected_calibration_error(y_true, after, y_pred),
    }
