"""Effective number of images of a test set with groups or copies, which are not independent.

The mean m of values x_i over N images in U units has a variance v that follows from the sums over units alone
(Cochran 1977, "Sampling Techniques", section 9; the cluster-robust variance), v_0 if all images were independent:

    v = U / (U - 1) sum_u (sum_{i in u} (x_i - m))^2 / N^2,        v_0 = sum_i (x_i - m)^2 / (N (N - 1))

    n_e = N v_0 / v (t_{N-1} / t_{U-1})^2                           (Korn and Graubard 1998)

with t_d the 97.5 % point of Student's distribution of d degrees of freedom, since v is known from U numbers only. n_e
is never above N. Where all x_i are equal v says nothing: then images of a unit count as one, n_e = N^2 / sum_u N_u^2
(Kish 1965). Where every image is a unit of its own, n_e = N.
"""

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, FloatArray, IntArray


def are_own(units: IntArray | None) -> bool:
    """Return whether every image is a unit of its own; units (N,), None for no units at all."""
    return units is None or len(np.unique(units)) == len(units)


def effective_number(values: AnyArray, units: IntArray | None) -> float:
    """Return n_e of the mean of values (N,) of images in units (N,), 0..U-1; 0.0 for a single unit."""
    n = len(values)
    if units is None or are_own(units):
        return float(n)
    sizes, centred = np.bincount(units), np.asarray(values, dtype=np.float64) - np.mean(values)
    n_units = int(np.count_nonzero(sizes))
    if n_units == 1:
        return 0.0
    alone = float(np.sum(centred**2)) / (n * (n - 1))
    if alone == 0.0:
        return kish_number(np.full(n, 1 / n), units)
    v = n_units / (n_units - 1) * float(np.sum(np.bincount(units, weights=centred) ** 2)) / n**2
    return min(n * alone / v if v > 0 else np.inf, n) * student_factor(n_units, n)


def kish_number(weights: FloatArray, units: IntArray | None) -> float:
    """Return 1 / sum_u (sum_{i in u} w_i)^2 of weights (N,) that sum to 1: n_e if images of a unit are all alike."""
    if units is None or are_own(units):
        return float(1.0 / np.sum(weights**2))
    n_units = len(np.unique(units))
    return float(1.0 / np.sum(np.bincount(units, weights=weights) ** 2)) * student_factor(n_units, len(units))


def widening(units: IntArray | None) -> float:
    """Return by what the variance of replicates that resample units (N,) is too small; 1.0 where images are resampled.

    U / (U - 1) for a variance around a mean of the same units, and (t_{U-1} / t_{N-1})^2 for its own uncertainty; inf
    for a single unit.
    """
    if units is None or are_own(units):
        return 1.0
    n_units = len(np.unique(units))
    return np.inf if n_units == 1 else n_units / (n_units - 1) / student_factor(n_units, len(units))


def student_factor(n_units: int, n: int) -> float:
    """Return (t_{n-1} / t_{n_units-1})^2, below 1; 0.0 for a single unit."""
    from scipy.special import stdtrit

    return 0.0 if n_units == 1 else float(stdtrit(n - 1, 0.975) / stdtrit(n_units - 1, 0.975)) ** 2
