"""The exact minimum along a step of the squared hinge loss and its penalty."""

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray

# Steps of the line search, itself a Newton method in one dimension kept within a bracket.
LINE_STEPS = 30
# The line search ends where the slope along the step has fallen to this part.
LINE_TOLERANCE = 1e-4


def line_minimum(
    slack: FloatArray, change: FloatArray, weights: FloatArray, linear: FloatArray, square: FloatArray
) -> FloatArray:
    """Return the a >= 0 (M,) that minimises sum_i w_i max(0, slack_i + a change_i)^2 + a linear + a^2 square / 2.

    slack, change, weights (N, M); linear, square (M,). The derivative rises, piecewise linearly: Newton's method on it,
    kept within the bracket of signs already seen.
    """

    def derivative(length: FloatArray) -> tuple[FloatArray, FloatArray]:
        rest = np.maximum(slack + length.astype(slack.dtype) * change, 0.0)
        pull = weights * change
        first = 2.0 * np.einsum("nm,nm->m", pull, rest, dtype=np.float64)
        second = 2.0 * np.einsum("nm,nm,nm->m", pull, change, rest > 0, dtype=np.float64)
        return first + linear + length * square, second + square

    low, high, length = np.zeros(len(linear)), np.full(len(linear), np.inf), np.ones(len(linear))
    start, _ = derivative(low)
    for _ in range(LINE_STEPS):
        slope, rise = derivative(length)
        if (np.abs(slope) <= LINE_TOLERANCE * np.abs(start)).all():
            break
        low, high = np.where(slope < 0, length, low), np.where(slope > 0, length, high)
        newton = length - slope / np.where(rise > 0, rise, 1.0)
        middle = np.where(np.isfinite(high), 0.5 * (low + high), 2.0 * length)
        length = np.where((newton > low) & (newton < high), newton, middle)
    return length
