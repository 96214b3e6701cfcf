"""Linear heads without a closed form: L-BFGS on a smooth loss plus a ridge penalty, the strengths one after the other.

    minimise over W (R, C), b (C,):   (1 / N) sum_i loss(s_i, y_i)  +  |W|^2 / (2 N C_reg),     s_i = W^T r_i + b

with r_i the standardised features in the basis of their spectrum. This is scikit-learn's objective divided by N C_reg.
The columns of that basis have known curvature h lambda_j + 1 / (N C_reg), so W is scaled by its inverse square root
first: what is left is close to round, and a path of strengths, each started at the last one's optimum, takes a few
iterations each. Liu and Nocedal 1989, "On the limited memory BFGS method for large scale optimization".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.calibration import log_softmax
from classify.spectrum import Spectrum

# The objective must fall by more than this part of `tol`, relatively, or the descent is at its end.
OBJECTIVE_TOLERANCE = 1e-4
# Pairs kept by L-BFGS: with 20 the iterations are as many, and scipy spends more time on them than on the loss.
MEMORY = 10
# Round-off can end a line search a little above `tol`; up to this factor the optimum is still the optimum.
SLACK = 10.0


class Loss(Protocol):
    """A smooth loss of scores (N, C): its sum over the rows, and its gradient (N, C)."""

    curvature: float

    def __call__(self, scores: FloatArray, codes: IntArray) -> tuple[float, FloatArray]:
        """Return the sum of the loss and its gradient by the scores."""
        ...


class SoftmaxLoss:
    """-log softmax(s)[y]: multinomial logistic regression."""

    # Between p (1 - p) of an undecided head with ten classes and the upper bound 1 / 4 of two.
    curvature = 0.1

    def __call__(self, scores: FloatArray, codes: IntArray) -> tuple[float, FloatArray]:
        """Return the sum of the loss and its gradient, softmax(s) - [y]."""
        rows = np.arange(len(codes))
        log_proba = log_softmax(scores)
        total = -float(log_proba[rows, codes].sum(dtype=np.float64))
        gradient = np.exp(log_proba)
        gradient[rows, codes] -= 1.0
        return total, gradient


class SquaredHingeLoss:
    """sum_c max(0, 1 - t_c s_c)^2 with t = +1 for the true class, -1 for the others: one-versus-rest linear SVM."""

    curvature = 1.0

    def __call__(self, scores: FloatArray, codes: IntArray) -> tuple[float, FloatArray]:
        """Return the sum of the loss and its gradient, -2 t max(0, 1 - t s)."""
        signs = np.full(scores.shape, -1.0, dtype=scores.dtype)
        signs[np.arange(len(codes)), codes] = 1.0
        slack = np.maximum(1.0 - signs * scores, 0.0)
        return float((slack.astype(np.float64) ** 2).sum()), -2.0 * signs * slack


@dataclass(frozen=True)
class Optimum:
    """Weights (C, D) and intercept (C,) on standardised features, after how many iterations; no note if converged."""

    weights: FloatArray
    intercept: FloatArray
    n_iter: int
    note: str


def descend(
    loss: Loss,
    Z: FloatArray,
    codes: IntArray,
    spectrum: Spectrum,
    strengths: Sequence[float],
    *,
    tol: float,
    max_iter: int,
) -> Iterator[Optimum]:
    """Yield the optimum for each C_reg of `strengths`, in their order, for standardised Z (N, D) and codes (N,)."""
    rotated, n_classes = spectrum.rotate(Z), int(codes.max()) + 1
    weights: FloatArray = np.zeros((rotated.shape[1], n_classes))
    intercept: FloatArray = np.zeros(n_classes)
    for strength in strengths:
        penalty = 1.0 / (len(Z) * strength)
        scale = 1.0 / np.sqrt(loss.curvature * spectrum.eigenvalues + penalty)
        weights, intercept, n_iter, note = _descend_once(
            loss, rotated, codes, penalty, scale, weights, intercept, tol=tol, max_iter=max_iter
        )
        yield Optimum((spectrum.basis @ weights).T, intercept, n_iter, note and f"C={strength:g}: {note}")


def _descend_once(
    loss: Loss,
    rotated: FloatArray,
    codes: IntArray,
    penalty: float,
    scale: FloatArray,
    weights: FloatArray,
    intercept: FloatArray,
    *,
    tol: float,
    max_iter: int,
) -> tuple[FloatArray, FloatArray, int, str]:
    """Minimise for one strength from weights (R, C), intercept (C,); return the new ones, iterations and a note."""
    from scipy.optimize import minimize

    n_rows, shape = len(rotated), weights.shape

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        W, b = flat[: -shape[1]].reshape(shape) * scale[:, None], flat[-shape[1] :]
        total, by_score = loss(rotated @ W.astype(rotated.dtype) + b.astype(rotated.dtype), codes)
        # In this order the product is read row by row, twice as fast.
        by_weight = (by_score.T @ rotated).T / n_rows + penalty * W
        value = total / n_rows + 0.5 * penalty * float((W**2).sum())
        return value, np.append((by_weight * scale[:, None]).ravel(), by_score.sum(axis=0, dtype=np.float64) / n_rows)

    start = np.append((weights / scale[:, None]).ravel(), intercept)
    limits = {"maxiter": max_iter, "maxcor": MEMORY, "gtol": tol, "ftol": tol * OBJECTIVE_TOLERANCE}
    found = minimize(objective, start, method="L-BFGS-B", jac=True, options=limits)
    slope = float(np.abs(found.jac).max())
    note = "" if found.success or slope <= SLACK * tol else f"stopped after {found.nit} iterations, slope {slope:.1e}."
    return found.x[: -shape[1]].reshape(shape) * scale[:, None], found.x[-shape[1] :], int(found.nit), note
