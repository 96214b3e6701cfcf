"""Logistic regression and linear SVM against scikit-learn: seconds, objectives, accuracies over a grid of strengths."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.bench.head_comparisons.features import Data
from featurecache.bench.output import timed

# 45 strengths: the linear-probe protocol of CLIP and DINO.
STRENGTHS = tuple(float(c) for c in np.logspace(-6, 5, 45))
MARGINS = tuple(float(c) for c in np.logspace(-7, 2, 20))
# Above this C scikit-learn's L-BFGS needs hundreds of passes over 10,000 x 1280 features to get from our optimum to
# its own (231 at C = 0.01, 472 at 0.316), and its Newton's method is taken instead.
STEEP = 0.02
Objective = Callable[[Data, float, NDArray[Any], NDArray[Any]], float]
Reference = Callable[[int, Any], tuple[float | None, Any]]
"""Takes a setting and scikit-learn's head; returns the objective to compare ours with, and a head at the minimum."""


@dataclass(frozen=True)
class Setting:
    """One strength that both have fitted: scikit-learn's seconds, and how far apart they are, as in `Line`."""

    strength: float
    their_seconds: float
    objective: float | None
    accuracy: float
    converged: float | None

    def __str__(self) -> str:
        parts = [f"C = {self.strength:.3g}", f"{self.their_seconds:.1f} s", f"accuracy {100 * self.accuracy:+.2f}"]
        parts += [f"objective {self.objective:+.1e}"] if self.objective is not None else []
        return ", ".join(parts + ([f"converged {100 * self.converged:+.2f}"] if self.converged is not None else []))


@dataclass(frozen=True)
class Difference:
    """Seconds of ours for all settings, and those that scikit-learn has fitted as well."""

    settings: int
    seconds: float
    each: tuple[Setting, ...]
    note: str

    @property
    def their_seconds(self) -> float:
        """Scaled up to all settings."""
        return sum(one.their_seconds for one in self.each) * self.settings / len(self.each)

    @property
    def objective(self) -> float | None:
        """The largest; below zero ours is lower everywhere."""
        return max((one.objective for one in self.each if one.objective is not None), default=None)

    @property
    def accuracy(self) -> float:
        """The one farthest from zero."""
        return max((one.accuracy for one in self.each), key=abs)

    @property
    def converged(self) -> float | None:
        """The one farthest from zero."""
        return max((one.converged for one in self.each if one.converged is not None), key=abs, default=None)

    def noting(self, text: str) -> Difference:
        """The same with one more note."""
        return replace(self, note=", ".join(part for part in (self.note, text) if part))


def compare_logistic(data: Data, sparse: int, exact: bool) -> Difference:
    """LogisticRegression with its defaults, whose objective may be above its minimum; exact: at tol=1e-8 as well.

    Those fits begin where ours ended, which leaves them fewer passes (472 instead of 1,332 at C = 0.316). The objective
    has one minimum, and their slope shows whether they reached it.
    """
    from sklearn.linear_model import LogisticRegression

    from featurecache.classify.heads.logistic import LogisticHead

    ours = [LogisticHead(C=C) for C in STRENGTHS]
    # In float32 scikit-learn's own fits end far above such a tolerance.
    Z = data.scaled.astype(np.float64) if exact else None
    slopes: list[float] = []

    def reference(setting: int, theirs: Any) -> tuple[float | None, Any]:
        C, best = STRENGTHS[setting], None
        if exact:
            best = exact_logistic(C, *data.on_scaled(ours[setting])).fit(Z, data.y)
            slopes.append(softmax_slope(data, C, best))
        lowest = best or theirs
        return softmax_objective(data, C, lowest.coef_, lowest.intercept_), best

    theirs = [LogisticRegression(C=C) for C in STRENGTHS]
    found = _compare(data, ours, theirs, reference=reference, objective=softmax_objective, sparse=sparse)
    return found.noting(f"their largest slope {max(slopes):.0e}") if slopes else found


def fit_together(heads: Sequence[Any], X: NDArray[Any], y: NDArray[Any]) -> None:
    """Fit heads of one class on all rows of X (N, D), y (N,) as a sweep does, in a round that holds out none."""
    for _ in type(heads[0]).try_grid(heads, X, y, [np.zeros(len(y), dtype=bool)]):
        pass


def exact_logistic(C: float, coef: NDArray[Any], intercept: NDArray[Any]) -> Any:
    """LogisticRegression at tol=1e-8, unfitted, that will begin at these weights (C, D) and intercept (C,)."""
    from sklearn.linear_model import LogisticRegression

    solver = "lbfgs" if C <= STEEP else "newton-cholesky"
    head = LogisticRegression(C=C, solver=solver, tol=1e-8, max_iter=100_000, warm_start=True)
    head.coef_, head.intercept_ = coef, intercept
    return head


def compare_svm(data: Data, sparse: int, exact: bool) -> Difference:
    """LinearSVC(dual="auto") with its defaults; exact: compared with a lower bound of all solutions as well.

    It penalises its intercept, which ours leaves free, so that the two objectives differ; and at tol=1e-8 three fits
    did not end within 25 minutes. So `exact` takes the dual objective, found by our own fits in float64: however those
    came about, no solution of the problem is below it.
    """
    from sklearn.svm import LinearSVC

    from featurecache.classify.heads.linear_svm import LinearSVMHead

    best = [LinearSVMHead(C=C) for C in MARGINS] if exact else []
    if best:
        fit_together(best, data.X.astype(np.float64), data.y)

    def reference(setting: int, theirs: Any) -> tuple[float | None, Any]:
        if not best:
            return None, None
        return margin_bound(data, MARGINS[setting], *data.on_scaled(best[setting])), best[setting]

    ours, theirs = [LinearSVMHead(C=C) for C in MARGINS], [LinearSVC(C=C, dual="auto") for C in MARGINS]
    found = _compare(data, ours, theirs, reference=reference, objective=margin_objective, sparse=sparse)
    missed = sum(not head.converged_ for head in best)
    return found.noting(f"{missed} in float64 not converged") if missed else found


def _compare(
    data: Data, ours: Sequence[Any], theirs: Sequence[Any], *, reference: Reference, objective: Objective, sparse: int
) -> Difference:
    """Time ours, all together, and scikit-learn's `sparse`-th settings one by one, each printed as it is done."""
    seconds = timed(lambda: fit_together(ours, data.X, data.y))
    each = []
    for setting in range(0, len(ours), sparse):
        mine, other = ours[setting], theirs[setting]
        their_seconds = timed(partial(other.fit, data.scaled, data.y))
        lowest, best = reference(setting, other)
        found = Setting(
            mine.C,
            their_seconds,
            None if lowest is None else objective(data, mine.C, *data.on_scaled(mine)) / lowest - 1.0,
            _accuracy(data, mine, other),
            None if best is None else _accuracy(data, mine, best),
        )
        print(f"  {found}", file=sys.stderr, flush=True)
        each.append(found)
    missed = sum(not head.converged_ for head in ours)
    return Difference(len(ours), seconds, tuple(each), f"{missed} of {len(ours)} not converged" if missed else "")


def _accuracy(data: Data, mine: Any, other: Any) -> float:
    """Ours, which scales rows itself, minus that of another, which may be one of ours as well."""
    from featurecache.classify.heads.shared.linear import LinearHead

    rows = data.X_test if isinstance(other, LinearHead) else data.scaled_test
    return float(mine.score(data.X_test, data.y_test) - other.score(rows, data.y_test))


def softmax_objective(data: Data, C: float, coef: NDArray[Any], intercept: NDArray[Any]) -> float:
    """C sum_i -log softmax(W z_i + b)[y_i] + |W|^2 / 2, in float64 and without losing small losses."""
    scores = data.scaled @ coef.T.astype(np.float64) + intercept
    rows = np.arange(len(scores))
    scores -= scores[rows, data.y][:, None]
    largest = scores.max(axis=1)
    raised = np.exp(scores - largest[:, None])
    raised[rows, data.y] = 0.0
    loss = largest + np.log1p(raised.sum(axis=1) + np.expm1(-largest))
    return float(C * loss.sum() + 0.5 * (coef.astype(np.float64) ** 2).sum())


def softmax_slope(data: Data, C: float, head: Any) -> float:
    """The largest number in the gradient of that objective by coef_ and intercept_, divided by C N, as tol has it."""
    from scipy.special import softmax

    by_scores = softmax(data.scaled @ head.coef_.T + head.intercept_, axis=1)
    by_scores[np.arange(len(by_scores)), data.y] -= 1.0
    n = len(by_scores)
    by_coef = by_scores.T @ data.scaled / n + head.coef_ / (C * n)
    return float(max(np.abs(by_coef).max(), np.abs(by_scores.mean(axis=0)).max()))


def margin_objective(data: Data, C: float, coef: NDArray[Any], intercept: NDArray[Any]) -> float:
    """C sum_ic max(0, 1 - t_ic (W z_i + b)_c)^2 + |W|^2 / 2, in float64."""
    scores = data.scaled @ coef.T.astype(np.float64) + intercept
    signs = np.where(data.y[:, None] == np.arange(len(coef)), 1.0, -1.0)
    slack = np.maximum(1.0 - signs * scores, 0.0)
    return float(C * (slack**2).sum() + 0.5 * (coef.astype(np.float64) ** 2).sum())


def margin_bound(data: Data, C: float, coef: NDArray[Any], intercept: NDArray[Any]) -> float:
    """What no `margin_objective` is below: the dual objective, near to the least of them where W and b are optimal.

        D(a) = sum_i a_i - sum_i a_i^2 / (4 C) - |sum_i a_i t_i z_i|^2 / 2,     a_i >= 0,  sum_i a_i t_i = 0

    of every class, at a = 2 C max(0, 1 - t (W z + b)), its heavier side scaled down to the other (Fan et al. 2008,
    equation 4; Boyd and Vandenberghe 2004, section 5.2.2: weak duality).
    """
    scores = data.scaled @ coef.T.astype(np.float64) + intercept
    signs = np.where(data.y[:, None] == np.arange(len(coef)), 1.0, -1.0)
    duals = 2.0 * C * np.maximum(1.0 - signs * scores, 0.0)
    own, other = (np.where(signs == side, duals, 0.0).sum(axis=0) for side in (1.0, -1.0))
    sides = np.where(signs > 0, own, other)
    duals *= np.minimum(own, other) / np.where(sides > 0, sides, 1.0)
    weights = (duals * signs).T @ data.scaled
    return float(duals.sum() - (duals**2).sum() / (4.0 * C) - 0.5 * (weights**2).sum())
