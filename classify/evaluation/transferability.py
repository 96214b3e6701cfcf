"""Transferability: how well features suit labels, without training a head.

X (N, D) features, y (N,) codes 0..C-1, all classes present. More is better for every one of them.

LogME    You, Liu, Wang and Long, LogME: Practical Assessment of Pre-trained Models for Transfer Learning, ICML 2021
H-score  Bao et al., An Information-Theoretic Approach to Transferability in Task Transfer Learning, ICIP 2019; shrunk:
         Ibrahim, Ponomareva and Mazumder, Newer is not always better: Rethinking transferability metrics, their
         peculiarities, stability and performance, 2021 (ECML PKDD 2022)
LEEP     Nguyen, Hassner, Seeger and Archambeau, LEEP: A New Measure to Evaluate Transferability, ICML 2020
NCE      Tran, Nguyen and Hassner, Transferability and Hardness of Supervised Classification Tasks, ICCV 2019
"""

from collections.abc import Callable

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.solvers.covariance import decompose_rows

# log(alpha / beta) is sought here, relative to the mean eigenvalue, first on a grid: the evidence may have two hills.
LOG_RANGE = 30.0
N_GRID = 121
N_GOLDEN = 60  # golden sections of one grid step: 0.5 / 1.618^60 is below rounding
GOLDEN = (5**0.5 - 1) / 2


def log_me(X: FloatArray, y: IntArray) -> float:
    """Return the logarithm of the maximum evidence per sample, its mean over the classes (equation 2 of the paper).

    Each class indicator t (N,) is seen as X w + noise, w ~ N(0, 1/alpha), noise ~ N(0, 1/beta):

        log p(t) = log N(t; 0, X X^T / alpha + 1 / beta)    maximal over alpha and beta

    With lambda = alpha / beta, the best scale v for a given lambda is known, v = t^T (X X^T + lambda)^-1 t / N, so that
    only lambda is sought: -2/N log p = log(2 pi v) + log|X X^T + lambda| / N + 1. The paper's fixed-point iteration
    ends at the same maximum. X is taken as it is, without centring, as in the paper.
    """
    left, energy = decompose_rows(np.asarray(X, dtype=np.float64))
    targets = (y[:, None] == np.arange(int(y.max()) + 1)).astype(np.float64)
    inside = (left.T @ targets) ** 2
    outside = np.maximum((targets**2).sum(axis=0) - inside.sum(axis=0), 0.0)
    n_rows, scale = len(X), float(energy.mean()) if len(energy) else 1.0

    def evidence(log_ratio: FloatArray) -> FloatArray:
        ratio = scale * np.exp(log_ratio)
        spread = energy[:, None] + ratio
        v = ((inside / spread).sum(axis=0) + outside / ratio) / n_rows
        log_det = np.log(spread).sum(axis=0) + (n_rows - len(energy)) * np.log(ratio)
        return np.asarray(-0.5 * (np.log(2 * np.pi * v) + log_det / n_rows + 1.0))

    return float(_maximum(evidence, targets.shape[1]).mean())


def _maximum(evidence: Callable[[FloatArray], FloatArray], n: int) -> FloatArray:
    """Return the maxima (n,) of n functions of one variable at once: the best of a grid, then golden sections."""
    grid = np.linspace(-LOG_RANGE, LOG_RANGE, N_GRID)
    best = grid[np.stack([evidence(np.full(n, value)) for value in grid]).argmax(axis=0)]
    step = grid[1] - grid[0]
    low, high = best - step, best + step
    for _ in range(N_GOLDEN):
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        left_is_better = evidence(a) > evidence(b)
        low, high = np.where(left_is_better, low, a), np.where(left_is_better, b, high)
    return np.asarray(evidence((low + high) / 2))


def h_score(X: FloatArray, y: IntArray) -> float:
    """Return tr(cov(X)^+ cov(E[X | y])), between 0 and C - 1: how much of the features' variance tells classes apart.

    It is no measure where D is near N or above: every feature is then explained, and the score is C - 1.
    """
    centred = np.asarray(X, dtype=np.float64) - X.mean(axis=0, dtype=np.float64)
    left, _ = decompose_rows(centred)
    return float(sum(n * np.sum(left[y == c].mean(axis=0) ** 2) for c, n in enumerate(np.bincount(y)) if n))


def shrunk_h_score(X: FloatArray, y: IntArray) -> float:
    """Return tr(S^-1 (1 - a) cov(E[X | y])), S = (1 - a) cov(X) + a tr(cov(X)) / D, a by Ledoit and Wolf (2004).

    The H-score of Ibrahim et al. 2021, which stays a measure where D is above N. Solved in the N rows or D
    columns, whichever are fewer: cov(E[X | y]) lies in the span of the rows.
    """
    centred = np.asarray(X, dtype=np.float64) - X.mean(axis=0, dtype=np.float64)
    n_rows, feature_dim = centred.shape
    left, energy = decompose_rows(centred)
    shrinkage = _ledoit_wolf(centred, energy)
    variance = (1.0 - shrinkage) * energy / n_rows + shrinkage * energy.sum() / n_rows / feature_dim
    between = np.zeros(len(energy))
    for c, n in enumerate(np.bincount(y)):
        if n:
            between += n * left[y == c].mean(axis=0) ** 2
    return float((1.0 - shrinkage) * np.sum(between * energy / (n_rows - 1) / variance))


def _ledoit_wolf(centred: FloatArray, energy: FloatArray) -> float:
    """Return the shrinkage of Ledoit and Wolf, A well-conditioned estimator, 2004, for centred rows (N, D)."""
    n_rows, feature_dim = centred.shape
    mean = energy.sum() / n_rows / feature_dim
    squared = float((energy**2).sum()) / n_rows**2
    distance = squared - feature_dim * mean**2
    fourth = float(((centred**2).sum(axis=1) ** 2).sum())
    noise = (fourth / n_rows - squared) / n_rows
    return 0.0 if distance <= 0 else min(noise, distance) / distance


def leep(source_proba: FloatArray, y: IntArray) -> float:
    """Return the mean of log sum_z P(y_i | z) theta(x_i)_z, for the backbone's own probabilities theta (N, Z).

    P(y | z) is the empirical conditional of the joint P(y, z) = 1/N sum over i with label y of theta(x_i)_z.
    """
    theta = np.asarray(source_proba, dtype=np.float64)
    joint = np.stack([theta[y == c].sum(axis=0) for c in range(int(y.max()) + 1)])
    total = joint.sum(axis=0)
    conditional = joint / np.where(total > 0, total, 1.0)
    return float(np.log((theta * conditional[y]).sum(axis=1)).mean())


def nce(source_labels: IntArray, y: IntArray) -> float:
    """Return -H(y | z) in nats: the labels' negative conditional entropy given the backbone's own classes z (N,)."""
    joint = np.zeros((int(y.max()) + 1, int(source_labels.max()) + 1))
    np.add.at(joint, (y, source_labels), 1.0 / len(y))
    of_source = np.broadcast_to(joint.sum(axis=0), joint.shape)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / of_source[seen])).sum())
