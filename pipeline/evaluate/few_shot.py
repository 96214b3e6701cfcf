"""Accuracy of every head with 1, 2, 4 ... labels per class, and its forecast for twice as many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.progress import Progress
from featurecache.classify.evaluation.criteria import ACCURACY
from featurecache.evaluate.failures import why_failed
from featurecache.evaluate.join import Labelled
from featurecache.features.feature_set import Features
from featurecache.runs.documents import DoublingRow, FewLabels, HeadRow, ShotsRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.classify.selection.few_shot import Shots
    from featurecache.classify.selection.settings import Grid


def check_shots(labelled: Labelled, shots: Sequence[int], repeats: int, *, seed: int) -> None:
    """Raise BadLabels where train is too small to draw from, before any head is fitted."""
    from featurecache.classify.selection.few_shot import draw_shots

    train = labelled.rows("train")
    draw_shots(labelled.y[train], shots, repeats, units=labelled.units[train], seed=seed)


def few_shot(
    heads: Sequence[HeadRow],
    features: Sequence[Features],
    labelled: Labelled,
    *,
    shots: Sequence[int],
    repeats: int,
    seed: int,
    grids: Mapping[str, Grid] | None = None,
    metric: str = ACCURACY,
    progress: Progress,
) -> FewLabels:
    """Return the rows "shots" and "doubling" of results.json; heads: those of results.json, already tested.

    Every head sees the same samples; one that cannot learn from so few is left out with a word. grids: the settings to
    try of each head, those of the table unless given; metric: what they are chosen by, the curve itself is of
    accuracies. Raises BadLabels where train is too small to draw from.
    """
    from featurecache.base.errors import ClassifyError
    from featurecache.classify.selection.few_shot import draw_shots, try_shots

    train, test = labelled.rows("train"), labelled.rows("test")
    nested = draw_shots(labelled.y[train], shots, repeats, units=labelled.units[train], seed=seed)
    drawn = [[_of_all(sample, train) for sample in samples] for samples in nested]
    left_out = sorted(set(shots) - {sample.shots for sample in drawn[0]})
    if left_out:
        progress.say(
            f"No class has {left_out[0]} training images: that number of shots, and any above it, is left out."
        )
    X_of = {each.name: each.X for each in features}
    points: list[ShotsRow] = []
    doubling: list[DoublingRow] = []
    n_all = len(train) + len(labelled.rows("val"))
    for head in heads:
        X = X_of[head["features"]]
        sweeping = partial(progress.sweeping, f"{head['name']}, few labels")
        learn = partial(try_shots, head["name"], X, labelled.y, X[test], labelled.y[test], drawn)
        try:
            grid = None if grids is None else grids[head["name"]]
            right = learn(grid=grid, metric=metric, units=labelled.units, seed=seed, progress=sweeping)
        except Exception as error:  # noqa: BLE001  (heads of scikit-learn raise what they like)
            why = error if isinstance(error, ClassifyError) else why_failed(error)
            progress.say(f"{head['name']} has no curve of few labels: {why}")
            continue
        points += _points(head, right, drawn[0], labelled.units[test])
        points.append(_all_labels(head, n_all, len(labelled.classes)))
        doubling += _doubling(head, right.mean(axis=2), drawn[0], n_all)
    return {"shots": points, "doubling": doubling}


def _of_all(sample: Shots, train: NDArray[np.int64]) -> Shots:
    """The sample with its rows among all images instead of among train."""
    return replace(sample, rows=train[sample.rows], chosen_on=train[sample.chosen_on])


def _points(
    head: HeadRow, right: NDArray[np.bool_], samples: Sequence[Shots], units: NDArray[np.integer[Any]]
) -> list[ShotsRow]:
    """A row for each number of shots of right answers (R, K, M) on test images in units (M,)."""
    from featurecache.classify.evaluation.clustered import effective_number
    from featurecache.classify.evaluation.learning_curve import mean_interval

    rows: list[ShotsRow] = []
    for k, sample in enumerate(samples):
        accuracy = right[:, k].mean(axis=1)
        low, high = mean_interval(accuracy, effective_number(right[:, k].mean(axis=0), units))
        rows.append({
            "features": head["features"], "head": head["name"], "shots": sample.shots, "n_train": len(sample.rows),
            "n_chosen": len(sample.chosen_on), "repeats": len(right), "mean": float(accuracy.mean()), "low": low,
            "high": high,
        })  # fmt: skip
    return rows


def _all_labels(head: HeadRow, n: int, n_classes: int) -> ShotsRow:
    low, high = head["test"]["accuracy_ci"]
    return {
        "features": head["features"], "head": head["name"], "shots": round(n / n_classes, 1), "n_train": n,
        "repeats": 1, "mean": head["test"]["accuracy"], "low": low, "high": high,
    }  # fmt: skip


def _doubling(head: HeadRow, accuracy: NDArray[Any], samples: Sequence[Shots], n_all: int) -> list[DoublingRow]:
    """The accuracy expected of twice the labels, by the law through all points; no row where these are too few."""
    from featurecache.classify.evaluation.learning_curve import forecast

    now = head["test"]["accuracy"]
    n = np.array([*(len(sample.rows) for sample in samples), n_all], dtype=np.float64)
    curve = np.column_stack([accuracy, np.full(len(accuracy), now)])
    expected = forecast(n, curve, n_more=2 * n_all)
    if expected is None:
        return []
    return [{
        "features": head["features"], "head": head["name"], "n_now": n_all, "n_doubled": expected.n, "now": now,
        "expected": expected.accuracy, "low": expected.low, "high": expected.high, "gain": expected.gain,
    }]  # fmt: skip
