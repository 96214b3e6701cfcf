"""Linear SVMs on the kernel columns of landmarks (Nystroem), for every strength and round together."""

from collections.abc import Iterator, Sequence

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.arrays.scaling import Scaling, column_moments
from featurecache.classify.solvers.covariance import SignRegression, spectra
from featurecache.classify.solvers.linear.newton import solve_margins

# Slope at which an optimum counts as found, that of `LinearSVMHead`, and steps after which one is given up.
TOLERANCE = 2e-3
MAX_STEPS = 500
# Newton's method takes the classes one by one, with a (V, V) matrix each; with more than this a thousand of them would
# take minutes on any number of rows.
HINGE_CLASSES = 50


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
        for number, spectrum in enumerate(spectra(Rows(columns, weights, standard=True), codes, weights, n_classes)):
            regression = SignRegression(spectrum)
            for place, strength in enumerate(strengths):
                W, intercept = regression.solve(0.5 / strength)
                yield place, number, W.T, intercept, ""
        return
    rows = KernelRows(columns, weights)
    for found in solve_margins(rows, codes, weights, n_classes, strengths, tol=TOLERANCE, max_steps=MAX_STEPS):
        intercept = found.intercept - found.weights @ rows.scalings[found.number].mean
        yield found.setting, found.number, found.weights.T, intercept, found.note
