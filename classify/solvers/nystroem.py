"""The linear problem on kernel columns: every strength and every round together."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.arrays.scaling import Scaling, column_moments
from featurecache.classify.solvers.linear.newton import solve_margins

# Slope at which an optimum counts as found, that of `LinearSVMHead`, and steps after which one is given up.
TOLERANCE = 2e-3
MAX_STEPS = 500
# Newton's method takes the classes one by one, with a (V, V) matrix each; with more than this a thousand of them would
# take minutes on any number of rows.
HINGE_CLASSES = 50
# Rows at a time in float64: 4096 x 1000 is 33 MB.
BLOCK = 4096


class KernelRows(Rows):
    """Rows that are centred but not scaled: |W|^2 is the norm of the decision in the space of the kernel."""

    def _scalings(self, weights: FloatArray) -> list[Scaling]:
        return [Scaling(mean, np.ones_like(mean)) for mean in column_moments(self.X, weights)[0]]


def solve_landmarks(
    columns: FloatArray,
    codes: IntArray,
    weights: FloatArray,
    strengths: Sequence[float],
    n_classes: int,
) -> Iterator[tuple[int, int, FloatArray, FloatArray, str]]:
    """Yield for each strength and round its place, the round, coef (V, C), intercept (C,) and a note, or none.

    columns (N, V), codes (N,), weights (R, N), 0 for the rows that a round does not train on. Squared hinge loss,
    max(0, 1 - t s)^2; with more than 50 classes the square alone, (1 - t s)^2, which one decomposition solves for all
    classes and strengths (least-squares SVM: Suykens and Vandewalle 1999).
    """
    if n_classes > HINGE_CLASSES:
        for number, own in enumerate(weights):
            solved = solve_squares(columns, codes, own, strengths, n_classes)
            yield from ((place, number, coef, intercept, "") for place, (coef, intercept) in enumerate(solved))
        return
    rows = KernelRows(columns, weights)
    for found in solve_margins(rows, codes, weights, n_classes, strengths, tol=TOLERANCE, max_steps=MAX_STEPS):
        intercept = found.intercept - found.weights @ rows.scalings[found.number].mean
        yield found.setting, found.number, found.weights.T, intercept, found.note


def solve_squares(
    columns: FloatArray, codes: IntArray, weights: FloatArray, strengths: Sequence[float], n_classes: int
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield coef (V, C) and intercept (C,) that minimise C sum_i w_i |1 - t_i (W k_i + b)|^2 + |W|^2 / 2."""
    total, blocks = weights.sum(), [slice(start, start + BLOCK) for start in range(0, len(codes), BLOCK)]
    mean = sum((weights[rows] @ columns[rows] for rows in blocks), np.zeros(columns.shape[1])) / total
    share = np.bincount(codes, weights, minlength=n_classes) / total
    covariance, moments = np.zeros((len(mean), len(mean))), np.zeros((len(mean), n_classes))
    for rows in blocks:
        centred = columns[rows] - mean
        weighted = centred * weights[rows, None]
        covariance += weighted.T @ centred
        member = csr_matrix((np.ones(len(centred)), (codes[rows], np.arange(len(centred)))), (n_classes, len(centred)))
        moments += 2.0 * (member @ weighted).T
    eigenvalues, basis = np.linalg.eigh(covariance)
    rotated = basis.T @ moments
    for strength in strengths:
        coef = basis @ (rotated / (np.maximum(eigenvalues, 0.0) + 0.5 / strength)[:, None])
        yield coef, 2.0 * share - 1.0 - mean @ coef
