"""Heads that descend beside scikit-learn's that do: seconds, objectives and accuracies over a grid of strengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench_clock import timed
from pipeline.bench_features import Data

# 45 strengths: the linear-probe protocol of CLIP and DINO.
STRENGTHS = tuple(float(c) for c in np.logspace(-6, 5, 45))
MARGINS = tuple(float(c) for c in np.logspace(-7, 2, 20))
# Above this C scikit-learn's L-BFGS needs hundreds of passes over 10,000 x 1280 features to get from our optimum to
# its own (231 at C = 0.01, 472 at 0.316), and its Newton's method is taken instead.
STEEP = 0.02
Objective = Callable[[Data, float, NDArray[Any], NDArray[Any]], float]
Build = Callable[[float], Any]
BuildFrom = Callable[[float, Any], Any]


@dataclass(frozen=True)
class Difference:
    """Seconds of both for all settings, and how far apart they are: see `bench_lines.Line`."""

    settings: int
    seconds: float
    their_seconds: float
    objective: float | None
    accuracy: float
    converged: float | None
    note: str


def compare_logistic(data: Data, sparse: int, exact: bool) -> Difference:
    """LogisticRegression with its defaults, whose objective may be above its minimum; exact: at tol=1e-8 as well.

    Those fits begin where ours ended, which leaves them fewer passes (472 instead of 1,332 at C = 0.316). The objective
    has one minimum, and their slope tells whether they came to it.
    """
    from sklearn.linear_model import LogisticRegression

    from classify.logistic import LogisticHead

    ours = [LogisticHead(C=C) for C in STRENGTHS]
    theirs = exact_logistic if exact else None
    return _compare(data, ours, STRENGTHS, lambda C: LogisticRegression(C=C), theirs, softmax_objective, sparse)


def exact_logistic(C: float, ours: Any) -> Any:
    """LogisticRegression at tol=1e-8, unfitted, that will begin at coef_ and intercept_ of another."""
    from sklearn.linear_model import LogisticRegression

    solver = "lbfgs" if C <= STEEP else "newton-cholesky"
    head = LogisticRegression(C=C, solver=solver, tol=1e-8, max_iter=100_000, warm_start=True)
    head.coef_, head.intercept_ = (each.astype(np.float64) for each in (ours.coef_, ours.intercept_))
    return head


def compare_svm(data: Data, sparse: int, exact: bool) -> Difference:
    """LinearSVC(dual="auto") with its defaults.

    It penalises its intercept, which ours leaves free, so that objectives are compared only with `exact`: then it is
    fitted once more with an intercept_scaling of 100, which takes the penalty off but for a ten-thousandth.
    """
    from sklearn.svm import LinearSVC

    from classify.linear_svm import LinearSVMHead

    def converged(C: float, ours: Any) -> Any:
        return LinearSVC(C=C, dual=False, intercept_scaling=100.0, tol=1e-8, max_iter=100_000)

    ours = [LinearSVMHead(C=C) for C in MARGINS]
    theirs = converged if exact else None
    return _compare(data, ours, MARGINS, lambda C: LinearSVC(C=C, dual="auto"), theirs, margin_objective, sparse)


def _compare(
    data: Data,
    ours: list[Any],
    strengths: Sequence[float],
    build: Build,
    converged: BuildFrom | None,
    objective: Objective,
    sparse: int,
) -> Difference:
    """Time both, and compare with scikit-learn's converged fits where they are asked for.

    scikit-learn fits every `sparse`-th setting, its time being scaled up to all.
    """
    chosen = range(0, len(strengths), sparse)
    seconds = timed(lambda: type(ours[0]).fit_all(ours, data.X, data.y))
    theirs = [build(strengths[i]) for i in chosen]
    their_seconds = timed(lambda: [head.fit(data.X, data.y) for head in theirs]) * len(strengths) / len(chosen)
    mine = [ours[i] for i in chosen]
    # In float32 scikit-learn's own fits end far above such a tolerance.
    exact = data.X.astype(np.float64) if converged else None
    best = [converged(strengths[i], ours[i]).fit(exact, data.y) for i in chosen] if converged else None
    comparable = best or (theirs if objective is softmax_objective else None)
    missed = sum(not head.converged_ for head in ours)
    told = [f"{missed} of {len(ours)} not converged"] if missed else []
    if best and objective is softmax_objective:
        slopes = [softmax_slope(data, strengths[i], head) for i, head in zip(chosen, best, strict=True)]
        told.append(f"their largest slope {max(slopes):.0e}")
    return Difference(
        len(strengths),
        seconds,
        their_seconds,
        _worst_objective(data, [strengths[i] for i in chosen], mine, comparable, objective) if comparable else None,
        _worst_accuracy(data, mine, theirs),
        _worst_accuracy(data, mine, best) if best else None,
        ", ".join(told),
    )


def _worst_objective(
    data: Data, strengths: Sequence[float], ours: Sequence[Any], theirs: Sequence[Any], objective: Objective
) -> float:
    """Return the largest (ours - theirs) / theirs; below zero ours is lower everywhere."""
    return max(
        objective(data, C, mine.coef_, mine.intercept_) / objective(data, C, other.coef_, other.intercept_) - 1.0
        for C, mine, other in zip(strengths, ours, theirs, strict=True)
    )


def _worst_accuracy(data: Data, ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Return the difference, ours - theirs, that is farthest from zero."""
    X, y = data.X_test, data.y_test
    differences = [mine.score(X, y) - other.score(X, y) for mine, other in zip(ours, theirs, strict=True)]
    return float(max(differences, key=abs))


def softmax_objective(data: Data, C: float, coef: NDArray[Any], intercept: NDArray[Any]) -> float:
    """C sum_i -log softmax(W x_i + b)[y_i] + |W|^2 / 2, in float64 and without losing small losses."""
    scores = data.X @ coef.T.astype(np.float64) + intercept
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

    by_scores = softmax(data.X @ head.coef_.T + head.intercept_, axis=1)
    by_scores[np.arange(len(by_scores)), data.y] -= 1.0
    n = len(by_scores)
    by_coef = by_scores.T @ data.X / n + head.coef_ / (C * n)
    return float(max(np.abs(by_coef).max(), np.abs(by_scores.mean(axis=0)).max()))


def margin_objective(data: Data, C: float, coef: NDArray[Any], intercept: NDArray[Any]) -> float:
    """C sum_ic max(0, 1 - t_ic (W x_i + b)_c)^2 + |W|^2 / 2, in float64."""
    scores = data.X @ coef.T.astype(np.float64) + intercept
    signs = np.where(data.y[:, None] == np.arange(len(coef)), 1.0, -1.0)
    slack = np.maximum(1.0 - signs * scores, 0.0)
    return float(C * (slack**2).sum() + 0.5 * (coef.astype(np.float64) ** 2).sum())
