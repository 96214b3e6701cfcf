"""Linear discriminant analysis with a shrunk covariance."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.centroid import class_means
from classify.linear import LinearHead
from classify.scaling import fit_scaling
from classify.spectrum import Spectrum, decompose


class LDAHead(LinearHead):
    """Gaussian classes with one covariance, shrunk towards a multiple of the identity.

        S(s) = (1 - s) S + s (tr S / D) I,     score_c = m_c^T S(s)^-1 z - m_c^T S(s)^-1 m_c / 2 + log prior_c

    on standardised features (Friedman 1989, equation 18; Ledoit and Wolf 2004; scikit-learn's "lsqr" solver with fixed
    shrinkage). Probabilities are the softmax of the scores, the posterior of the model.
    """

    def __init__(self, shrinkage: float = 0.1) -> None:
        self.shrinkage = shrinkage

    def _solve(self, heads: Sequence[Self], X: FloatArray, codes: IntArray) -> Iterator[Self]:
        scaling = fit_scaling(X)
        Z = scaling.apply(X)
        means = class_means(Z, codes)
        prior = np.bincount(codes) / len(codes)
        spectrum = decompose(Z - means.astype(Z.dtype)[codes])
        for head in heads:
            weights = shrunk_inverse(spectrum, means.T, head.shrinkage).T
            intercept = np.log(prior) - 0.5 * (weights * means).sum(axis=1)
            yield head._learn(scaling, weights, intercept, X)


def shrunk_inverse(spectrum: Spectrum, M: FloatArray, shrinkage: float) -> FloatArray:
    """Return S(s)^-1 M for M (D, C), S having the given spectrum; at s = 0 directions without variance are left out."""
    target = shrinkage * spectrum.eigenvalues.sum() / len(M)
    shrunk = (1.0 - shrinkage) * spectrum.eigenvalues + target
    floor = len(M) * np.finfo(np.float64).eps * max(float(shrunk.max()), np.finfo(np.float64).tiny)
    inverse = np.where(shrunk > floor, 1.0 / np.maximum(shrunk, floor), 0.0)
    inside = spectrum.basis.T @ M
    outside = M - spectrum.basis @ inside
    solved = spectrum.basis @ (inverse[:, None] * inside)
    return np.asarray(solved + outside / target if target > floor else solved)
