"""Leave-one-out accuracy of ridge and kNN, in closed form."""

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.scaling import fit_scaling
from featurecache.classify.evaluation.similarity import nearest_others
from featurecache.classify.solvers.covariance import class_signs, decompose_rows

# Votes for the neighbour head: few enough for classes of a dozen images, enough to outvote a stray one.
N_VOTES = 5
# Every strength costs one product; these span what the best was on mnist5k, Fashion-MNIST and digits.
ALPHAS = tuple(10.0**exponent for exponent in range(-1, 6))


def ridge_correct(X: FloatArray, y: IntArray, *, alphas: tuple[float, ...] = ALPHAS) -> tuple[BoolArray, float]:
    """Return which rows of X (N, D), codes y (N,), a ridge on class signs gets right without them, and its strength.

    With the hat matrix H = 1 1^T / N + U diag(s^2 / (s^2 + alpha)) U^T of centred Z = U diag(s) V^T the prediction for
    row i by all the others is exactly

        t_i - (t_i - (H T)_i) / (1 - H_ii)                                             (Allen 1974; Golub et al. 1979)

    The strength is the one with most right answers, the larger of equals. Mean and scale are those of all rows.
    """
    Z = fit_scaling(X).apply(X).astype(np.float64)
    signs = class_signs(y, int(y.max()) + 1)
    left, energy = decompose_rows(Z - Z.mean(axis=0))
    centred = signs - signs.mean(axis=0)
    moments = left.T @ centred
    best, strength = np.zeros(len(y), dtype=bool), 0.0
    for alpha in sorted(alphas, reverse=True):
        kept = energy / (energy + alpha)
        residual = centred - left @ (kept[:, None] * moments)
        leverage = 1.0 / len(y) + (left**2) @ kept
        correct = (signs - residual / np.maximum(1.0 - leverage, np.finfo(float).eps)[:, None]).argmax(axis=1) == y
        if strength == 0.0 or correct.sum() > best.sum():
            best, strength = correct, alpha
    return best, strength


def knn_correct(X: FloatArray, y: IntArray, *, k: int = N_VOTES) -> BoolArray:
    """Return which rows of X (N, D), codes y (N,), the k most similar others by cosine vote for; ties to the nearer."""
    rows, _ = nearest_others(X, X, min(k, len(X) - 1), np.arange(len(X)))
    votes = y[rows]
    # A vote counts 1 and a little more the nearer it is, so that equal counts go to the class that came first.
    weight = 1.0 + np.linspace(1e-3, 0.0, votes.shape[1])
    tally = np.zeros((len(y), int(y.max()) + 1))
    for column in range(votes.shape[1]):
        np.add.at(tally, (np.arange(len(y)), votes[:, column]), weight[column])
    return np.asarray(tally.argmax(axis=1) == y)
