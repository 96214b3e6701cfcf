"""How fast the grids of heads are here, beside scikit-learn fitting the same settings one by one.

Each line is one head on the same standardised rows in the same run, first ours, then scikit-learn's with its defaults:

    logistic      45 values of C, 1e-6 to 1e5, against LogisticRegression
    linear_svm    20 values of C, 1e-7 to 1e2, against LinearSVC(dual="auto")
    ridge         45 strengths with leave-one-out, against RidgeClassifier with 5 folds

What stands behind the ratio: the largest relative difference of the objective over the settings (ours minus theirs, so
that below zero ours is lower) and of the accuracy on rows that neither has seen. LinearSVC penalises its intercept,
which ours leaves free; for the difference it is fitted once more with an intercept_scaling of 100, which takes the
penalty off but for a ten-thousandth, outside the time. The last column is what 5 folds cost beside one split.

The features are those of Fashion-MNIST where `data/` holds them, else random ones with their spectrum and accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tables import table

# 45 strengths: the linear-probe protocol of CLIP and DINO.
STRENGTHS = tuple(float(c) for c in np.logspace(-6, 5, 45))
MARGINS = tuple(float(c) for c in np.logspace(-7, 2, 20))
ALPHAS = tuple(float(a) for a in np.logspace(-3, 8, 45))
N_ROWS, N_FULL, N_TEST = 10_000, 60_000, 10_000
# Eigenvalues of the covariance of Fashion-MNIST's standardised features by rank (efficientnet_lite0, 1280 columns).
SPECTRUM = {1: 90.7, 2: 49.2, 5: 31.2, 10: 17.8, 20: 8.66, 50: 3.51, 100: 1.90, 200: 1.10, 400: 0.612, 800: 0.230,
            1100: 0.100, 1280: 0.0315}  # fmt: skip
# Distance of random class means along the leading directions, in deviations: about nine of ten rows come out right.
SEPARATION, SEPARATED = 1.0, 40
FEATURE_DIM, N_CLASSES = 1280, 10


@dataclass(frozen=True)
class Data:
    """Standardised train rows X (N, D) with codes y (N,), and rows for a test; float32."""

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    head: str
    settings: int
    seconds: float
    their_seconds: float
    ratio: float
    wanted: float
    objective_difference: float | None
    accuracy_difference: float
    folds_ratio: float
    note: str = ""


def load_features(images: Path, cache_root: Path) -> Data | None:
    """Fashion-MNIST, train and val before test, in a random order; None where it is not extracted."""
    from extract.errors import ExtractError
    from extract.manifest import read_images
    from extract.memo import Memo
    from extract.request import FeatureRequest
    from pipeline.errors import PipelineError
    from pipeline.join import label_samples, look_up

    if not images.is_dir() or not cache_root.is_dir():
        return None
    request = FeatureRequest("efficientnet_lite0")
    try:
        with Memo(cache_root, read_only=True) as memo:
            labelled = label_samples(read_images(str(images)), memo, seed=0)
            (found,) = look_up(labelled, (request,), images=str(images), cache_root=cache_root, memo=memo)
    except (PipelineError, ExtractError):
        return None
    seen, test = labelled.place("train", "val"), labelled.place("test")
    order = np.random.default_rng(0).permutation(seen.stop)
    X, y = found.X[seen][order], labelled.y[seen][order]
    return Data(images.name, X, y, found.X[test], labelled.y[test])


def make_features(n_rows: int) -> Data:
    """Random Gaussian classes whose pooled covariance has the spectrum of real features."""
    rng = np.random.default_rng(0)
    ranks, energies = np.array(list(SPECTRUM)), np.array(list(SPECTRUM.values()))
    deviations = np.sqrt(np.exp(np.interp(np.log(np.arange(1, FEATURE_DIM + 1)), np.log(ranks), np.log(energies))))
    basis = np.linalg.qr(rng.normal(size=(FEATURE_DIM, FEATURE_DIM)))[0]
    means = np.zeros((N_CLASSES, FEATURE_DIM))
    means[:, :SEPARATED] = SEPARATION * rng.normal(size=(N_CLASSES, SEPARATED))
    y = rng.integers(0, N_CLASSES, n_rows + N_TEST)
    X = np.empty((len(y), FEATURE_DIM), dtype=np.float32)
    for start in range(0, len(y), N_TEST):
        here = slice(start, start + N_TEST)
        rows = rng.normal(size=(len(y[here]), FEATURE_DIM)) + means[y[here]]
        X[here] = (rows * deviations) @ basis.T
    return Data("random features", X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:])


def standardised(data: Data, n_rows: int) -> Data:
    """The first rows, every column with mean 0 and deviation 1: what scikit-learn's solvers like best."""
    X, y = data.X[:n_rows], data.y[:n_rows]
    mean, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1.0)
    test = (data.X_test - mean) / scale
    return Data(data.name, ((X - mean) / scale).astype(np.float32), y, test.astype(np.float32), data.y_test)


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


def margin_objective(data: Data, C: float, coef: NDArray[Any], intercept: NDArray[Any]) -> float:
    """C sum_ic max(0, 1 - t_ic (W x_i + b)_c)^2 + |W|^2 / 2, in float64."""
    scores = data.X @ coef.T.astype(np.float64) + intercept
    signs = np.where(data.y[:, None] == np.arange(len(coef)), 1.0, -1.0)
    slack = np.maximum(1.0 - signs * scores, 0.0)
    return float(C * (slack**2).sum() + 0.5 * (coef.astype(np.float64) ** 2).sum())


Objective = Callable[[Data, float, NDArray[Any], NDArray[Any]], float]


class Bench:
    """The lines, on some data; scikit-learn fits every `sparse`-th setting, its time being scaled up to all."""

    def __init__(self, data: Data, sparse: int, exact: bool) -> None:
        self.data, self.sparse, self.exact = data, sparse, exact

    def logistic(self) -> Line:
        """LogisticRegression; for the exact difference at its tol=1e-8."""
        from sklearn.linear_model import LogisticRegression

        from classify.logistic import LogisticHead

        def judge(C: float) -> Any:
            return LogisticRegression(C=C, tol=1e-8, max_iter=100_000)

        ours = [LogisticHead(C=C) for C in STRENGTHS]
        return self._descended(
            "logistic", ours, STRENGTHS, lambda C: LogisticRegression(C=C), judge, softmax_objective, 25
        )

    def linear_svm(self) -> Line:
        """LinearSVC, which liblinear solves in the primal for more rows than columns."""
        from sklearn.svm import LinearSVC

        from classify.linear_svm import LinearSVMHead

        def judge(C: float) -> Any:
            return LinearSVC(C=C, intercept_scaling=100.0, tol=1e-6, max_iter=10_000)

        ours = [LinearSVMHead(C=C) for C in MARGINS]
        return self._descended("linear_svm", ours, MARGINS, lambda C: LinearSVC(C=C), judge, margin_objective, 40)

    def _descended(
        self,
        name: str,
        ours: list[Any],
        strengths: Sequence[float],
        theirs: Callable[[float], Any],
        judge: Callable[[float], Any],
        objective: Objective,
        wanted: float,
    ) -> Line:
        data, chosen = self.data, range(0, len(strengths), self.sparse)
        seconds = timed(lambda: type(ours[0]).fit_all(ours, data.X, data.y))
        fitted = [theirs(strengths[i]) for i in chosen]
        their_seconds = timed(lambda: [head.fit(data.X, data.y) for head in fitted]) * len(strengths) / len(chosen)
        judges = [judge(strengths[i]).fit(data.X, data.y) for i in chosen] if self.exact else fitted
        differences = [
            objective(data, strengths[i], ours[i].coef_, ours[i].intercept_)
            / objective(data, strengths[i], head.coef_, head.intercept_)
            - 1.0
            for i, head in zip(chosen, judges, strict=True)
            if self.exact or objective is softmax_objective
        ]
        accuracies = [
            ours[i].score(data.X_test, data.y_test) - head.score(data.X_test, data.y_test)
            for i, head in zip(chosen, judges, strict=True)
        ]
        missed = sum(not head.converged_ for head in ours)
        note = f"{missed} of {len(ours)} not converged" if missed else ""
        worst = max(differences) if differences else None
        ratio = their_seconds / seconds
        accuracy = max(accuracies, key=abs)
        return Line(
            name, len(strengths), seconds, their_seconds, ratio, wanted, worst, accuracy, self._folds(name), note
        )

    def ridge(self) -> Line:
        """RidgeClassifier in 5 folds; the largest difference of the scores stands in the objective's place."""
        from sklearn.linear_model import RidgeClassifier
        from sklearn.model_selection import cross_val_score

        from classify.ridge import RidgeHead, leave_one_out

        data, chosen = self.data, ALPHAS[:: self.sparse]
        seconds = timed(lambda: leave_one_out(ALPHAS, data.X, data.y))
        their_seconds = timed(
            lambda: [cross_val_score(RidgeClassifier(alpha=alpha), data.X, data.y, cv=5) for alpha in chosen]
        )
        their_seconds *= len(ALPHAS) / len(chosen)
        differences, accuracies = [], []
        for alpha in chosen[:: max(len(chosen) // 5, 1)]:
            mine = RidgeHead(alpha=alpha).fit(data.X, data.y)
            theirs = RidgeClassifier(alpha=alpha).fit(data.X.astype(np.float64), data.y)
            expected = theirs.decision_function(data.X_test)
            distance = np.abs(mine.decision_function(data.X_test) - expected).max() / np.abs(expected).max()
            differences.append(float(distance))
            accuracies.append(mine.score(data.X_test, data.y_test) - theirs.score(data.X_test, data.y_test))
        ratio, accuracy = their_seconds / seconds, max(accuracies, key=abs)
        folds = self._folds("ridge")
        return Line("ridge", len(ALPHAS), seconds, their_seconds, ratio, 50, max(differences), accuracy, folds)

    def _folds(self, name: str) -> float:
        """What a sweep by 5 folds costs beside one on a split of four to one, both with their refit."""
        from classify.rounds import fold_rounds, val_round
        from classify.sweep import sweep

        X, y = self.data.X, self.data.y
        single = timed(lambda: sweep(name, X, y, rounds=val_round(len(y) * 4 // 5, len(y))))
        return timed(lambda: sweep(name, X, y, rounds=fold_rounds(np.arange(len(y)) % 5))) / single


# Every line of the table: a name that --heads knows, and what measures it.
LINES: dict[str, Callable[[Bench], Line]] = {
    "logistic": Bench.logistic,
    "linear_svm": Bench.linear_svm,
    "ridge": Bench.ridge,
}


def timed(go: Callable[[], object]) -> float:
    """Return how many seconds a call takes; warnings about convergence are what is being measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        go()
        return time.perf_counter() - started


def lines_text(data: Data, lines: Sequence[Line]) -> str:
    """The table."""
    rows = [
        (
            line.head,
            line.settings,
            f"{line.seconds:.1f}",
            f"{line.their_seconds:.1f}",
            f"{line.ratio:.1f}",
            f"{line.wanted:g}",
            "" if line.objective_difference is None else f"{line.objective_difference:+.1e}",
            f"{100 * line.accuracy_difference:+.2f}",
            f"{line.folds_ratio:.1f}",
            line.note,
        )
        for line in lines
    ]
    headers = ("head", "settings", "s", "scikit-learn s", "ratio", "wanted", "objective", "accuracy", "5 folds", "")
    size = f"{len(data.X):,} x {data.X.shape[1]:,} x {len(np.unique(data.y))}"
    return f"{data.name}, {size}\n\n{table(rows, headers, right=range(1, 9))}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print, from the command line."""
    parser = argparse.ArgumentParser(prog="featurecache bench heads", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help=f"{N_FULL:,} rows instead of {N_ROWS:,}")
    parser.add_argument("--heads", metavar="A,B", default=",".join(LINES), help=f"of {', '.join(LINES)} (default: all)")
    parser.add_argument("--images", metavar="DIR", type=Path, default=Path("data/fashion-mnist"))
    parser.add_argument("--cache", metavar="DIR", type=Path, default=Path("data/cache"), help="where its features are")
    parser.add_argument(
        "--sparse", metavar="N", type=int, default=1, help="let scikit-learn fit every Nth setting, its time scaled up"
    )
    parser.add_argument("--exact", action="store_true", help="compare objectives with scikit-learn's at tol=1e-8: slow")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers as well")
    options = parser.parse_args(argv)
    names = [name for name in options.heads.split(",") if name]
    if unknown := [name for name in names if name not in LINES]:
        parser.error(f"'{unknown[0]}' has no line here: {', '.join(LINES)} have")
    n_rows = N_FULL if options.full else N_ROWS
    data = standardised(load_features(options.images, options.cache) or make_features(n_rows), n_rows)
    bench = Bench(data, max(options.sparse, 1), options.exact)
    lines = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        lines.append(LINES[name](bench))
    print(lines_text(data, lines))
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
