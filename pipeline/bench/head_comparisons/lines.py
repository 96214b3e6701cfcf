"""The lines of the bench of heads: each is one head, what it cost here and what scikit-learn took for the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurecache.bench.head_comparisons.features import Data
from featurecache.bench.head_comparisons.neighbours import compare_knn, compare_mlp
from featurecache.bench.head_comparisons.solvers import Difference, Setting, compare_logistic, compare_svm
from featurecache.bench.output import timed
from featurecache.classify.heads.table import head_grid, list_heads

ALPHAS = tuple(float(a) for a in np.logspace(-3, 8, 45))
N_FOLDS = 5
# Of so many strengths of ridge the scores are compared as well; each is a fit of scikit-learn's in float64.
COMPARED = 5
# So many rows are gone through before a sweep is timed, so that what it imports is there.
WARM_UP = 500


@dataclass(frozen=True)
class Line:
    """One line of the table; None where there is nothing to compare with, or it was not asked for."""

    head: str
    settings: int
    seconds: float
    folds_ratio: float
    """Cost of a sweep by 5 folds, as a multiple of one on a split of four to one, both with their refit."""
    their_seconds: float | None = None
    wanted: float | None = None
    objective: float | None = None
    """Ours minus scikit-learn's, relatively: the largest difference; of `linear_svm`, above a bound for all."""
    accuracy: float | None = None
    """Ours minus scikit-learn's with its defaults, on rows that neither has seen: the largest difference."""
    converged: float | None = None
    """The same against fits in float64 that reach the minimum: of `logistic` scikit-learn's, of `linear_svm` ours."""
    note: str = ""
    each: tuple[Setting, ...] = ()
    """How far apart they are at every strength that scikit-learn has fitted."""

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return None if self.their_seconds is None else self.their_seconds / self.seconds


def logistic(data: Data, sparse: int, exact: bool) -> Line:
    """45 values of C against LogisticRegression."""
    return _descended("logistic", 25, compare_logistic(data, sparse, exact), data)


def linear_svm(data: Data, sparse: int, exact: bool) -> Line:
    """20 values of C against LinearSVC, which liblinear solves in the primal for more rows than columns."""
    return _descended("linear_svm", 40, compare_svm(data, sparse, exact), data)


def _descended(name: str, wanted: float, found: Difference, data: Data) -> Line:
    return Line(
        name,
        found.settings,
        found.seconds,
        fold_costs(name, data)[1],
        found.their_seconds,
        wanted,
        found.objective,
        found.accuracy,
        found.converged,
        found.note,
        found.each,
    )


def ridge(data: Data, sparse: int, exact: bool) -> Line:
    """45 strengths by 5 folds, ours with its refit, against RidgeClassifier; scores take the objective's place."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import cross_val_score

    from featurecache.classify.heads.ridge import RidgeHead

    chosen, Z = ALPHAS[::sparse], data.scaled
    single, folds = fold_costs("ridge", data)
    their_seconds = timed(
        lambda: [cross_val_score(RidgeClassifier(alpha=alpha), Z, data.y, cv=N_FOLDS) for alpha in chosen]
    )
    their_seconds *= len(ALPHAS) / len(chosen)
    differences, accuracies = [], []
    for alpha in chosen[:: max(len(chosen) // COMPARED, 1)]:
        mine = RidgeHead(alpha=alpha).fit(data.X, data.y)
        theirs = RidgeClassifier(alpha=alpha).fit(Z.astype(np.float64), data.y)
        expected = theirs.decision_function(data.scaled_test)
        differences.append(float(np.abs(mine.decision_function(data.X_test) - expected).max() / np.abs(expected).max()))
        accuracies.append(mine.score(data.X_test, data.y_test) - theirs.score(data.scaled_test, data.y_test))
    worst = max(accuracies, key=abs)
    return Line("ridge", len(ALPHAS), single * folds, folds, their_seconds, 50, max(differences), worst)


def knn(data: Data, sparse: int, exact: bool) -> Line:
    """20 values of k against one query of NearestNeighbors, by brute force."""
    found = compare_knn(data.X, data.y, len(data.X) // N_FOLDS)
    folds = fold_costs("knn", data)[1]
    return Line("knn", found.settings, found.ours, folds, found.theirs, 1 / 1.2, note=found.note)


def mlp(data: Data, sparse: int, exact: bool) -> Line:
    """12 networks against MLPClassifier for the same number of epochs; the accuracy is their mean."""
    found = compare_mlp(data.X, data.y, len(data.X) // N_FOLDS)
    folds = fold_costs("mlp", data)[1]
    return Line("mlp", found.settings, found.ours, folds, found.theirs, 2, accuracy=found.accuracy, note=found.note)


def folds_only(name: str) -> Callable[[Data, int, bool], Line]:
    """Return what measures a head of which only the folds are of interest; its seconds are those of one split."""

    def measure(data: Data, sparse: int, exact: bool) -> Line:
        single, ratio = fold_costs(name, data)
        return Line(name, len(head_grid(name)), single, ratio)

    return measure


def fold_costs(name: str, data: Data) -> tuple[float, float]:
    """Return the seconds of a sweep on a split of four to one with its refit, and how many times that 5 folds take.

    Both try the same settings, those that the split tries before val has fallen. The first fold holds out what the
    split does: `mlp` ends where its held-out rows say, and on five splits of the same 10,000 rows one sweep took up to
    half as much again as another.
    """
    from featurecache.classify.selection.holdouts import fold_rounds, val_round
    from featurecache.classify.selection.sweep import sweep

    n_rows = len(data.y)
    few = slice(None, None, max(n_rows // WARM_UP, 1))
    sweep(name, data.X[few], data.y[few], rounds=fold_rounds(np.arange(len(data.y[few])) % N_FOLDS))
    n_train = n_rows * (N_FOLDS - 1) // N_FOLDS
    fold = np.where(np.arange(n_rows) < n_train, 1 + np.arange(n_rows) % (N_FOLDS - 1), 0)
    rows: list[dict[str, Any]] = []
    single = timed(lambda: rows.extend(sweep(name, data.X, data.y, rounds=val_round(n_train, n_rows)).grid))
    tried = [each for each in head_grid(name) if any(each.items() <= row["params"].items() for row in rows)]
    folds = timed(lambda: sweep(name, data.X, data.y, rounds=fold_rounds(fold), grid=tried))
    return single, folds / single


# What measures each head, by the name that --heads knows: against scikit-learn, the others only by their folds.
COMPARISONS: dict[str, Callable[[Data, int, bool], Line]] = {
    "logistic": logistic,
    "linear_svm": linear_svm,
    "ridge": ridge,
    "knn": knn,
    "mlp": mlp,
}
LINES = COMPARISONS | {info.name: folds_only(info.name) for info in list_heads() if info.name not in COMPARISONS}
