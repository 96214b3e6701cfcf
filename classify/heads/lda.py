"""Linear discriminant analysis with a shrunk covariance."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.linear import LinearHead
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.solvers.covariance import Spectrum, spectra
from featurecache.classify.solvers.linear.optimum import Optimum


class LDAHead(LinearHead):
    """Gaussian classes with one covariance, shrunk towards a multiple of the identity.

        S(s) = (1 - s) S + s (tr S / D) I,     score_c = m_c^T S(s)^-1 z - m_c^T S(s)^-1 m_c / 2 + log prior_c

    on standardised features (Friedman 1989, equation 18; Ledoit and Wolf 2004; scikit-learn's "lsqr" solver with fixed
    shrinkage). Weights of rows and classes count rows more than once. With one row a class there is no scatter within
    classes, S is the identity, and the nearest mean decides.

    Probabilities are softmax(scores / temperature), at 1.0 the posterior of the model. That is far too certain where
    classes are not Gaussian or D is not small compared with N: a sweep fits the temperature on val.
    """

    allowed: ClassVar[Allowed] = ALLOWED["lda"]
    learned: ClassVar[Learned] = LEARNED["lda"]

    def __init__(
        self,
        shrinkage: float = 0.1,
        *,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.shrinkage = shrinkage
        self.class_weight = class_weight
        self.temperature = temperature

    @classmethod
    def _optima(
        cls, heads: Sequence[Self], rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int
    ) -> Iterator[Optimum]:
        rounds = spectra(rows, codes, weights, n_classes, within=True)
        for setting, head in enumerate(heads):
            for number, spectrum in enumerate(rounds):
                W = shrunk_inverse(spectrum, spectrum.means.T, head.shrinkage).T
                with np.errstate(divide="ignore"):  # a class without weight is never predicted
                    log_prior = np.log(spectrum.counts / spectrum.counts.sum())
                intercept = np.maximum(log_prior, LOG_SMALLEST) - 0.5 * (W * spectrum.means).sum(axis=1)
                yield Optimum(setting, number, W, intercept, 1, 0.0, 0.0, "")


# A scatter within classes of less than this part of that between them is none: in float32, copies of one row a class
# had up to 2e-8. Classes that are a thousand deviations apart need no covariance.
NO_SCATTER = 1e-6
# Stands for the logarithm of a prior of zero.
LOG_SMALLEST = float(np.log(np.finfo(np.float32).tiny))


def shrunk_inverse(spectrum: Spectrum, M: FloatArray, shrinkage: float) -> FloatArray:
    """Return S(s)^-1 M for M (D, C), S having the given spectrum; at s = 0 directions without variance are left out.

    Where no class has scatter S is the identity.
    """
    between = float(spectrum.counts @ ((spectrum.means - spectrum.mean) ** 2).sum(axis=1))
    if spectrum.energy.sum() <= NO_SCATTER * between:
        return M
    eigenvalues = spectrum.energy / spectrum.counts.sum()
    target = shrinkage * eigenvalues.sum() / len(M)
    shrunk = (1.0 - shrinkage) * eigenvalues + target
    floor = len(M) * np.finfo(np.float64).eps * max(float(shrunk.max(initial=0.0)), np.finfo(np.float64).tiny)
    inverse = np.divide(1.0, shrunk, out=np.zeros_like(shrunk), where=shrunk > floor)
    inside = spectrum.basis.T @ M
    outside = M - spectrum.basis @ inside
    solved = spectrum.basis @ (inverse[:, None] * inside)
    return np.asarray(solved + outside / target if target > floor else solved)
