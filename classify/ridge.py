"""Ridge regression on the class signs: every strength from one eigendecomposition."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.linear import LinearHead
from classify.scaling import fit_scaling
from classify.spectrum import decompose, product


class RidgeHead(LinearHead):
    """Least squares from standardised features to +1 for the true class and -1 for the others.

        minimise  sum_i |W z_i + b - t_i|^2  +  alpha |W|^2,   solved by   W^T = V (N diag(lambda) + alpha)^-1 V^T Z^T T

    (Hoerl and Kennard 1970; the problem of scikit-learn's RidgeClassifier.) The scores approximate signs, not log odds:
    see `temperature` in `ScoredHead`.
    """

    def __init__(self, alpha: float = 1000.0, *, temperature: float = 1.0) -> None:
        self.alpha = alpha
        self.temperature = temperature

    def _solve(self, heads: Sequence[Self], X: FloatArray, codes: IntArray) -> Iterator[Self]:
        scaling = fit_scaling(X)
        Z = scaling.apply(X)
        signs = np.where(codes[:, None] == np.arange(len(self.classes_)), 1.0, -1.0)
        intercept = signs.mean(axis=0)
        spectrum = decompose(Z)
        moments = spectrum.basis.T @ product(Z, signs - intercept)
        for head in heads:
            solved = moments / (len(Z) * spectrum.eigenvalues + head.alpha)[:, None]
            yield head._learn(scaling, (spectrum.basis @ solved).T, intercept, X)
