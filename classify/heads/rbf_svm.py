"""Support vector machine with the RBF kernel: exact for small sets, by landmarks (Nystroem) for larger ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.svm import SVC
from sklearn.utils import check_random_state

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import plain, working, working_dtype
from featurecache.classify.arrays.blocks import scores_of
from featurecache.classify.arrays.memmap import array_stored_like
from featurecache.classify.heads.fitted.kinds import FittedKernel
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.shared.base import ScoredHead
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.heads.shared.trials import Trial, judge_scores
from featurecache.classify.heads.shared.validation import begin_grid, row_weights, trained_classes
from featurecache.classify.heads.sklearn_head import fit_noting_convergence
from featurecache.classify.solvers.class_moments import row_moments, weighted_mean
from featurecache.classify.solvers.kernels import landmark_columns, rbf, squared_distances, whitening
from featurecache.classify.solvers.nystroem import solve_landmarks
from featurecache.classify.solvers.pairwise_coupling import couple, pair_columns

# Up to here the kernel matrix (10,000 x 10,000 float64, 800 MB) fits and libsvm ends in seconds.
EXACT_ROWS = 10_000
# Pairs grow with the square: 50 classes have 1,225, and coupling solves a 50 x 50 system for every row.
EXACT_CLASSES = 50
# Beyond this many iterations per two classes libsvm is not going to converge in the time a head may take.
EXACT_ITERATIONS = 1_000_000


class RBFSVMHead(FittedKernel, ScoredHead):
    """SVM with k(x, x') = exp(-gamma |x - x'|^2 / V), V the variance of the rows, summed over columns.

    method="exact" is libsvm on all pairs of classes (Chang and Lin 2011); scores are the logarithms of the
    probabilities that agree best with all pairs (`classify.solvers.pairwise_coupling`).
    method="nystroem" maps the rows to `n_landmarks` kernel columns K(X, L) K(L, L)^-1/2, L drawn from the rows at
    random (Williams and Seeger 2001), and solves a one-versus-rest SVM with squared hinge there, all C of a sweep and
    all folds at once (`classify.solvers.linear.newton`); scores are margins.
    method="auto" is exact up to 10,000 rows and 50 classes; `method_` says which it was. In a sweep by landmarks they
    and V are those of the rows that are never held out; with folds, where there are none, of all rows. Neither knows a
    label.

    Learned: origin_ (D,), gamma_ (the factor of |x - x'|^2), support_vectors_ (V, D) from the origin, coef_ (V, P) and
    intercept_ (P,), with P pairs of classes or P classes. Scores are not log odds of their own scale: see `temperature`
    in `ScoredHead`.
    """

    allowed: ClassVar[Allowed] = ALLOWED["rbf_svm"]
    learned: ClassVar[Learned] = LEARNED["rbf_svm"]
    common: ClassVar[tuple[str, ...]] = ("class_weight", "method", "n_landmarks", "random_state")

    def __init__(
        self,
        C: float = 10.0,
        *,
        gamma: float = 0.5,
        method: str = "auto",
        n_landmarks: int = 1000,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
        random_state: Any = None,
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.method = method
        self.n_landmarks = n_landmarks
        self.class_weight = class_weight
        self.temperature = temperature
        self.random_state = random_state

    @classmethod
    def try_grid(
        cls,
        heads: Sequence[Self],
        X: FloatArray,
        y: AnyArray,
        rounds: Sequence[BoolArray],
        sample_weight: FloatArray | None = None,
    ) -> Iterator[tuple[int, int, Trial]]:
        """Fit the heads in every round by the method that the refit on all rows will use, and yield a trial of each."""
        grid = begin_grid(heads, X, y, sample_weight)
        weights = np.stack([grid.trained_weights(heads[0].class_weight, held_out) for held_out in rounds])
        for setting, number, scores in heads[0]._fit_rounds(heads, grid.X, grid.codes, grid.weights, weights, rounds):
            trained = trained_classes(grid.codes, weights[number], len(grid.classes))
            trial = judge_scores(heads[setting], scores, grid.labels(rounds[number]), trained=trained)
            if heads[setting].method_ == "exact":  # all rows, maybe, and a column for each pair of classes
                del heads[setting].support_vectors_, heads[setting].coef_
            yield setting, number, trial

    def _fit_rounds(
        self,
        heads: Sequence[Self],
        X: FloatArray,
        codes: IntArray,
        own: FloatArray,
        weights: FloatArray,
        rounds: Sequence[BoolArray],
    ) -> Iterator[tuple[int, int, FloatArray]]:
        """Fit the heads in every round; yield setting, round and the scores (M, C) of its held-out rows.

        own (N,): the weights of the rows themselves; weights (R, N): those in every round, by class as well.
        """
        X = plain(X)
        origin = weighted_mean(X, own)
        n_classes = int(trained_classes(codes, own, len(self.classes_)).sum())
        for head in heads:
            head.method_ = head._method_for(int((own > 0).sum()), n_classes)
            head.origin_ = origin.astype(working_dtype(X))
        if self.method_ == "exact":
            return self._exactly(heads, X, codes, weights, rounds)
        return self._by_landmarks(heads, X, codes, weights, rounds, own > 0)

    def _method_for(self, n_rows: int, n_classes: int) -> str:
        if self.method != "auto":
            return self.method
        return "exact" if n_rows <= EXACT_ROWS and n_classes <= EXACT_CLASSES else "nystroem"

    def _exactly(
        self,
        heads: Sequence[Self],
        X: FloatArray,
        codes: IntArray,
        weights: FloatArray,
        rounds: Sequence[BoolArray],
    ) -> Iterator[tuple[int, int, FloatArray]]:
        """Solve every pair of classes with libsvm; the distances (N, N) are computed once for all."""
        centred = working(X) - self.origin_
        distances = squared_distances(centred, centred)
        for number, held_out in enumerate(rounds):
            trained = np.flatnonzero(weights[number] > 0)
            among, across = distances[np.ix_(trained, trained)], distances[held_out][:, trained]
            variance = row_moments(X, weights[number])[0].spread()
            present = np.unique(codes[trained])
            for head in heads:
                head._scale(variance)
            for setting, support in _fit_by_gamma(heads, among, codes[trained], weights[number, trained]):
                head = heads[setting]
                head.support_vectors_ = centred[trained[support]]
                decisions = rbf(across[:, support], head.gamma_) @ head.coef_ + head.intercept_
                yield setting, number, couple(decisions, present, len(head.classes_))

    def _fit_pairs(self, kernel: FloatArray, codes: IntArray, weights: FloatArray) -> IntArray:
        """Fit on the kernel (N, N), float64, return which rows support."""
        svc = SVC(C=self.C, kernel="precomputed", max_iter=EXACT_ITERATIONS)
        note = fit_noting_convergence(svc, kernel, codes, sample_weight=weights)
        self.coef_ = pair_columns(svc.dual_coef_, svc.n_support_).astype(self.origin_.dtype)
        self.intercept_ = svc.intercept_.astype(self.origin_.dtype)
        self.converged_, self.note_ = not note, note and f"C={self.C:g}, gamma={self.gamma:g}: {note}"
        return np.asarray(svc.support_)

    def _by_landmarks(
        self,
        heads: Sequence[Self],
        X: FloatArray,
        codes: IntArray,
        weights: FloatArray,
        rounds: Sequence[BoolArray],
        used: BoolArray,
    ) -> Iterator[tuple[int, int, FloatArray]]:
        """Solve all strengths of one gamma, in all rounds, together, by the rows that are used, bool (N,)."""
        never, of_any = used & ~np.logical_or.reduce(list(rounds)), weights.max(axis=0)
        variance = row_moments(X, np.where(never, of_any, 0.0) if never.any() else of_any)[0].spread()
        for head in heads:
            head._scale(variance)
        landmarks = self._landmarks(X, used, never)
        columns = array_stored_like(X, (len(X), len(landmarks)), working_dtype(X))  # nearly as large as X: one for all
        for gamma in dict.fromkeys(head.gamma_ for head in heads):
            settings = [setting for setting, head in enumerate(heads) if head.gamma_ == gamma]
            whiten = whitening(rbf(squared_distances(landmarks, landmarks), gamma))
            landmark_columns(X, self.origin_, landmarks, gamma, whiten, columns)
            strengths = [heads[setting].C for setting in settings]
            for place, number, coef, intercept, note in solve_landmarks(
                columns, codes, weights, strengths, len(self.classes_)
            ):
                head = heads[settings[place]]
                head.support_vectors_, head.intercept_ = landmarks, intercept.astype(columns.dtype)
                head.coef_ = (whiten @ coef).astype(columns.dtype)
                head.converged_, head.note_ = not note, note and f"gamma={head.gamma:g}, {note}"
                held_out = np.flatnonzero(rounds[number])
                yield settings[place], number, scores_of(columns, held_out, coef.T, intercept)

    def _scale(self, variance: float) -> None:
        self.gamma_ = self.gamma / (variance if variance > 0 else 1.0)

    def _landmarks(self, X: FloatArray, used: BoolArray, never: BoolArray) -> FloatArray:
        rows = np.flatnonzero(never if never.sum() >= min(self.n_landmarks, used.sum() // 2) else used)
        order = check_random_state(self.random_state).permutation(rows)
        return np.asarray(working(X[np.sort(order[: self.n_landmarks])]) - self.origin_)

    def _solve(
        self, heads: Sequence[Self], X: FloatArray, codes: IntArray, sample_weight: FloatArray | None
    ) -> Iterator[Self]:
        own = row_weights(None, self.classes_, codes, sample_weight)
        weights = row_weights(self.class_weight, self.classes_, codes, sample_weight)
        kept = weights > 0
        present, codes = np.unique(codes[kept], return_inverse=True)
        if len(present) < 2:
            raise ValueError("Only 1 class has rows with a weight: a head needs at least two classes.")
        for head in heads:
            head.classes_ = head.classes_[present]
        X = X if kept.all() else plain(X)[kept]
        rounds = [np.zeros(len(codes), dtype=bool)]
        for setting, _, _ in self._fit_rounds(heads, X, codes, own[kept], weights[None, kept], rounds):
            yield heads[setting]


def _fit_by_gamma(
    heads: Sequence[RBFSVMHead], distances: FloatArray, codes: IntArray, weights: FloatArray
) -> Iterator[tuple[int, IntArray]]:
    """Fit the heads on squared distances (N, N), those of one gamma on one kernel; yield place and support."""
    for gamma in dict.fromkeys(head.gamma_ for head in heads):
        kernel = rbf(distances, gamma).astype(np.float64)
        for setting, head in enumerate(heads):
            if head.gamma_ == gamma:
                yield setting, head._fit_pairs(kernel, codes, weights)
        del kernel  # makes room for the next: 800 MB for 10,000 rows
