"""The scores of fitted heads, by kind, for rows x of raw features: no head has a scaler.

linear       coef x + intercept                                 logistic, ridge, linear_svm, lda, centroid
quadratic    squares z^2 + coef z + intercept, z = x - mean     naive_bayes
two layers   coef max(hidden_coef x + hidden_intercept, 0) + intercept                      mlp
kernel       coef^T exp(-gamma |x - origin - v|^2) + intercept, then coupled if by pairs    rbf_svm

In float32, or in float64 like x; a quadratic and a kernel always in float64. Coefficients of a kernel reach C, and the
decisions are small: in float32 the probabilities would depend on the order in which products are summed, by up to 1e-4.
"""

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, FloatArray
from featurecache.classify.arrays.as_numpy import plain, working
from featurecache.classify.arrays.blocks import scores_of
from featurecache.classify.arrays.softmax import softmax
from featurecache.classify.heads.fitted.scored import FittedHead, FittedScores
from featurecache.classify.solvers.kernels import rbf, wide_distances
from featurecache.classify.solvers.pairwise_coupling import couple

# Rows in float64 at a time: 1024 x 1280 is 10 MB.
QUADRATIC_BLOCK = 1024
# Rows per matrix product: 2048 x 1024 float32 hidden values are 8 MB.
BLOCK = 2048
# 1024 x 10,000 kernel values in float64 are 82 MB.
KERNEL_BLOCK = 1024


class FittedLinear(FittedScores):
    """Scores X coef_^T + intercept_: coef_ (C, D), intercept_ (C,)."""

    coef_: FloatArray
    intercept_: FloatArray

    def _scores(self, X: FloatArray) -> FloatArray:
        return scores_of(X, slice(None), self.coef_, self.intercept_)


class FittedQuadratic(FittedScores):
    """Scores squares_ z^2 + coef_ z + intercept_: mean_ (D,), squares_ and coef_ (C, D), intercept_ (C,), float64."""

    mean_: FloatArray
    squares_: FloatArray
    coef_: FloatArray
    intercept_: FloatArray

    def _scores(self, X: FloatArray) -> FloatArray:
        return np.concatenate([
            quadratic(X[start : start + QUADRATIC_BLOCK], self.mean_, self.squares_, self.coef_, self.intercept_)
            for start in range(0, len(X), QUADRATIC_BLOCK)
        ])  # fmt: skip


def quadratic(
    X: FloatArray, mean: FloatArray, squares: FloatArray, coef: FloatArray, intercept: FloatArray
) -> FloatArray:
    """Return squares z^2 + coef z + intercept (B, S), z = x - mean, for X (B, D), weights (S, D) and intercept (S,)."""
    Z = plain(X) - mean
    scores = Z @ coef.T + intercept
    np.square(Z, out=Z)
    return np.asarray(scores + Z @ squares.T)


class FittedNetwork(FittedHead):
    """One hidden layer: hidden_coef_ (H, D), hidden_intercept_ (H,), coef_ (C, H), intercept_ (C,)."""

    hidden_coef_: FloatArray
    hidden_intercept_: FloatArray
    coef_: FloatArray
    intercept_: FloatArray
    temperature: float

    def predict_proba(self, X: FloatArray) -> FloatArray:
        """Return the class probabilities (M, C) of X (M, D)."""
        X = self._checked(X)
        scores = np.concatenate([self._scores(working(X[i : i + BLOCK])) for i in range(0, len(X), BLOCK)])
        return softmax(scores / self.temperature)

    def predict_both(self, X: FloatArray) -> tuple[AnyArray, FloatArray]:
        """Return what `predict` and `predict_proba` do, at the cost of one."""
        proba = self.predict_proba(X)
        return np.asarray(self.classes_[proba.argmax(axis=1)]), proba

    def _scores(self, X: FloatArray) -> FloatArray:
        hidden = np.maximum(X @ self.hidden_coef_.T.astype(X.dtype) + self.hidden_intercept_.astype(X.dtype), 0.0)
        return np.asarray(hidden @ self.coef_.T.astype(X.dtype) + self.intercept_.astype(X.dtype))


class FittedKernel(FittedScores):
    """An SVM with k(x, x') = exp(-gamma_ |x - x'|^2): origin_ (D,), support_vectors_ (V, D) from it, coef_ (V, P).

    P: pairs of classes, whose decisions are coupled, or classes; intercept_ (P,).
    """

    method_: str
    origin_: FloatArray
    gamma_: float
    support_vectors_: FloatArray
    coef_: FloatArray
    intercept_: FloatArray

    def learned_sizes(self) -> dict[str, int]:
        """Return the size P of `learned`: of pairs of classes, or of classes."""
        n_classes = len(self.classes_)
        return {"P": n_classes * (n_classes - 1) // 2 if self.method_ == "exact" else n_classes}

    def _scores(self, X: FloatArray) -> FloatArray:
        decisions = np.concatenate([self._decide(X[i : i + KERNEL_BLOCK]) for i in range(0, len(X), KERNEL_BLOCK)])
        n_classes = len(self.classes_)
        return couple(decisions, np.arange(n_classes), n_classes) if self.method_ == "exact" else decisions

    def _decide(self, X: FloatArray) -> FloatArray:
        """Return the decisions (B, P) of X (B, D), in the type of X."""
        X = working(X)
        centred = X.astype(np.float64) - self.origin_
        kernel = rbf(wide_distances(centred, self.support_vectors_), self.gamma_)
        return np.asarray(kernel @ self.coef_.astype(np.float64) + self.intercept_).astype(X.dtype)
