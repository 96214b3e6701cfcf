"""Support vector machines: linear, and with the RBF kernel."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Self

import numpy as np
from sklearn.svm import SVC
from sklearn.utils import check_random_state

from classify.arrays import AnyArray, FloatArray, IntArray
from classify.descent import SquaredHingeLoss, descend
from classify.foreign import fit_noting_convergence
from classify.linear import DescentHead
from classify.scaling import Scaling, fit_common_scaling
from classify.scored import ScoredHead
from classify.spectrum import decompose
from classify.trials import Trial

# Up to here the kernel matrix (10,000 x 10,000 float64, 800 MB) fits and libsvm ends in seconds.
EXACT_ROWS = 10_000
# Beyond this many iterations per two classes libsvm is not going to converge in the time a head may take.
EXACT_ITERATIONS = 1_000_000


class LinearSVMHead(DescentHead):
    """One-versus-rest linear SVM with squared hinge loss on standardised features (Fan et al. 2008, LIBLINEAR).

        minimise  C sum_i sum_c max(0, 1 - t_ic (W z_i + b)_c)^2  +  |W|^2 / 2

    The problem of scikit-learn's LinearSVC, but the intercept is not penalised. The scores are margins, not log odds:
    see `temperature` in `ScoredHead`.
    """

    loss = SquaredHingeLoss()

    def __init__(self, C: float = 0.001, *, temperature: float = 1.0, tol: float = 1e-4, max_iter: int = 500) -> None:
        self.C = C
        self.temperature = temperature
        self.tol = tol
        self.max_iter = max_iter


class RBFSVMHead(ScoredHead):
    """SVM with k(x, x') = exp(-(gamma / D) |z - z'|^2), z the features scaled as one to mean variance 1.

    method="exact" is libsvm on all pairs of classes (Chang and Lin 2011); a class's score is its number of pairs won,
    plus less than a third for how clearly, as scikit-learn's decision_function has it.
    method="nystroem" maps the rows to `n_landmarks` kernel columns K(X, L) K(L, L)^-1/2, L drawn from the rows at
    random (Williams and Seeger 2001), and solves the linear SVM of `LinearSVMHead` there.
    method="auto" is exact up to 10,000 rows; `method_` says which it was.

    Either way the fitted head is support_vectors_ (V, D), scaled, coef_ (V, P) and intercept_ (P,), and its decisions
    are k(X, support_vectors_) coef_ + intercept_, with P pairs of classes or P classes. The scores are votes or
    margins, not log odds: see `temperature` in `ScoredHead`.
    """

    method_: str
    mean_: FloatArray
    scale_: FloatArray
    support_vectors_: FloatArray
    coef_: FloatArray
    intercept_: FloatArray

    def __init__(
        self,
        C: float = 10.0,
        *,
        gamma: float = 1.0,
        method: str = "auto",
        n_landmarks: int = 1000,
        temperature: float = 1.0,
        random_state: Any = None,
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.method = method
        self.n_landmarks = n_landmarks
        self.temperature = temperature
        self.random_state = random_state

    @classmethod
    def try_grid(
        cls, heads: Sequence[Self], X: FloatArray, y: AnyArray, X_val: FloatArray, y_val: AnyArray
    ) -> Iterator[Trial]:
        """Try the heads as `ScoredHead` does, by the method that the refit on X (N, D) and X_val (M, D) will take."""
        for head in heads:
            head.set_params(method=head._method(len(X) + len(X_val)))
        yield from super().try_grid(heads, X, y, X_val, y_val)

    def _solve(self, heads: Sequence[Self], X: FloatArray, codes: IntArray) -> Iterator[Self]:
        scaling = fit_common_scaling(X)
        Z = scaling.apply(X)
        method = self._method(len(Z))
        anchors = Z if method == "exact" else self._landmarks(Z)
        distances = squared_distances(Z, anchors)
        for head in heads:
            head.method_, head.mean_, head.scale_ = method, scaling.mean, scaling.scale
            kernel = np.exp(distances * np.asarray(-head.gamma / Z.shape[1], dtype=Z.dtype))
            yield head._fit_exact(kernel, Z, codes) if method == "exact" else head._fit_nystroem(kernel, anchors, codes)

    def _method(self, n_rows: int) -> str:
        if self.method not in ("auto", "exact", "nystroem"):
            raise ValueError(f"method={self.method!r} is unknown: use 'auto', 'exact' or 'nystroem'.")
        if self.method != "auto":
            return self.method
        return "exact" if n_rows <= EXACT_ROWS else "nystroem"

    def _landmarks(self, Z: FloatArray) -> FloatArray:
        order = check_random_state(self.random_state).permutation(len(Z))
        return np.asarray(Z[np.sort(order[: self.n_landmarks])])

    def _fit_exact(self, kernel: FloatArray, Z: FloatArray, codes: IntArray) -> Self:
        """Solve every pair of classes with libsvm on the kernel (N, N)."""
        svc = SVC(C=self.C, kernel="precomputed", max_iter=EXACT_ITERATIONS)
        note = fit_noting_convergence(svc, kernel.astype(np.float64), codes)
        self.support_vectors_ = Z[svc.support_]
        self.coef_ = pair_columns(svc.dual_coef_, svc.n_support_).astype(Z.dtype)
        self.intercept_ = svc.intercept_.astype(Z.dtype)
        self.converged_, self.note_ = not note, note and f"C={self.C:g}, gamma={self.gamma:g}: {note}"
        return self

    def _fit_nystroem(self, kernel: FloatArray, landmarks: FloatArray, codes: IntArray) -> Self:
        """Solve the linear SVM on kernel columns (N, V), and fold K(L, L)^-1/2 into the weights."""
        among = np.exp(squared_distances(landmarks, landmarks).astype(np.float64) * (-self.gamma / landmarks.shape[1]))
        whitening = inverse_root(among)
        mapped = kernel @ whitening.astype(kernel.dtype)
        mean = mapped.mean(axis=0, dtype=np.float64)
        Z = mapped - mean.astype(mapped.dtype)
        found = next(descend(SquaredHingeLoss(), Z, codes, decompose(Z), [self.C], tol=1e-4, max_iter=500))
        self.support_vectors_ = landmarks
        self.coef_ = (whitening @ found.weights.T).astype(kernel.dtype)
        self.intercept_ = (found.intercept - found.weights @ mean).astype(kernel.dtype)
        self.converged_, self.note_ = not found.note, found.note
        return self

    def _scores(self, X: FloatArray) -> FloatArray:
        Z = Scaling(self.mean_, self.scale_).apply(X)
        distances = squared_distances(Z, self.support_vectors_.astype(X.dtype))
        kernel = np.exp(distances * np.asarray(-self.gamma / X.shape[1], dtype=X.dtype))
        decisions: FloatArray = kernel @ self.coef_.astype(X.dtype) + self.intercept_.astype(X.dtype)
        return decisions if self.method_ == "nystroem" else count_votes(decisions, len(self.classes_))


def squared_distances(A: FloatArray, B: FloatArray) -> FloatArray:
    """Return |a - b|^2 for rows of A (N, D) and B (V, D): (N, V)."""
    from_origin = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1)
    return np.asarray(np.maximum(from_origin - 2.0 * (A @ B.T), 0.0))


def inverse_root(K: FloatArray) -> FloatArray:
    """Return K^-1/2 for a symmetric positive semi-definite K (V, V); directions lost in rounding are left out."""
    eigenvalues, vectors = np.linalg.eigh(K)
    # The kernel comes from float32 distances: below this part of the largest eigenvalue there is only noise.
    kept = eigenvalues > 1e-6 * eigenvalues[-1]
    return np.asarray((vectors[:, kept] / np.sqrt(eigenvalues[kept])) @ vectors[:, kept].T)


def pair_columns(dual: FloatArray, n_support: IntArray) -> FloatArray:
    """Turn libsvm's coefficients into one column per pair of classes, (V, C (C - 1) / 2), pairs (0, 1), (0, 2) ...

    dual (C - 1, V) holds, for a support vector of class i, its coefficient against class j in row j - 1 (j > i) or j
    (j < i).
    """
    if len(n_support) == 2:
        return dual.T
    ends = np.cumsum(n_support)
    of_class = [slice(end - n, end) for end, n in zip(ends, n_support, strict=True)]
    pairs = list(combinations(range(len(n_support)), 2))
    coef = np.zeros((dual.shape[1], len(pairs)))
    for pair, (i, j) in enumerate(pairs):
        coef[of_class[i], pair] = dual[j - 1, of_class[i]]
        coef[of_class[j], pair] = dual[i, of_class[j]]
    return coef


def count_votes(decisions: FloatArray, n_classes: int) -> FloatArray:
    """Return the scores (M, C) of pairwise decisions (M, P), positive for the first of a pair.

    votes_c + s_c / (3 (|s_c| + 1)), where s_c sums the decisions of the pairs of c in its favour: equal votes are
    decided by how clearly they were won. For two classes the one decision, positive for the second, is shared out:
    (-d/2, d/2).
    """
    if n_classes == 2:
        return np.column_stack([-decisions[:, 0], decisions[:, 0]]) / 2.0
    votes, clarity = np.zeros((2, len(decisions), n_classes), dtype=decisions.dtype)
    for pair, (i, j) in enumerate(combinations(range(n_classes), 2)):
        won = decisions[:, pair] >= 0
        votes[:, i] += won
        votes[:, j] += ~won
        clarity[:, i] += decisions[:, pair]
        clarity[:, j] -= decisions[:, pair]
    return np.asarray(votes + clarity / (3.0 * (np.abs(clarity) + 1.0)))
