"""Few labels per class: which rows, how a head's setting is chosen among so few, and how well it does on test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurecache.base.errors import BadLabels
from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.evaluation.criteria import ACCURACY
from featurecache.classify.evaluation.units import count_units
from featurecache.classify.heads.table import build_head
from featurecache.classify.selection.holdouts import fold_rounds
from featurecache.classify.selection.splits import assign_folds
from featurecache.classify.selection.sweep import sweep

# Folds that choose a setting; more would cost more than they tell at 2 to 32 rows per class.
MAX_FOLDS = 3

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Shots:
    """Rows drawn for so many labels per class: those of a repeat are nested, and the same for every head."""

    shots: int
    repeat: int
    rows: IntArray
    """Rows (n,) of train: `shots` of each class, or all that a smaller class has."""
    chosen_on: IntArray
    """The rows that choose the setting: the same, but two of each class for one shot, which leaves none to hold out."""


def draw_shots(
    y: IntArray, shots: Sequence[int], repeats: int, *, units: IntArray | None = None, seed: int = 0
) -> list[list[Shots]]:
    """Return for each repeat its samples of codes y (N,), fewest labels first; each contains the one before it.

    units (N,): the labels of a class come from as many units (groups, or copies of an image) as it has, the second of a
    unit after the first of all. Numbers of shots that no class has are left out. Raises BadLabels where fewer than two
    classes have two units, the least that a setting can be chosen on.
    """
    own = np.arange(len(y)) if units is None else units
    order, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    if np.sum(count_units(own, codes.ravel(), len(order)) >= 2) < 2:
        raise BadLabels(
            "Fewer than two classes have two training images, counting copies and members of a group once: give more "
            "images, or no --shots."
        )
    wanted = [k for k in sorted(set(shots)) if k <= counts.max()]
    drawn = []
    for repeat in range(repeats):
        rng = np.random.default_rng((seed, repeat))
        shuffled = [_by_turns(rng.permutation(np.flatnonzero(y == c)), own) for c in order]
        drawn.append([Shots(k, repeat, _first_rows(shuffled, k), _first_rows(shuffled, max(k, 2))) for k in wanted])
    return drawn


def _by_turns(rows: IntArray, units: IntArray) -> IntArray:
    """Return rows (n,) in another order: the first of every unit, then the second of every unit, and so on."""
    by_unit = np.argsort(units[rows], kind="stable")
    _, first, size = np.unique(units[rows][by_unit], return_index=True, return_counts=True)
    turn = np.empty(len(rows), dtype=np.int64)
    turn[by_unit] = np.arange(len(rows)) - np.repeat(first, size)
    return rows[np.argsort(turn, kind="stable")]


def _first_rows(shuffled: Sequence[IntArray], k: int) -> IntArray:
    return np.concatenate([rows[:k] for rows in shuffled])


def try_shots(
    name: str,
    X: FloatArray,
    y: IntArray,
    X_test: FloatArray,
    y_test: IntArray,
    drawn: Sequence[Sequence[Shots]],
    *,
    grid: Sequence[dict[str, Any]] | None = None,
    metric: str = ACCURACY,
    units: IntArray | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> BoolArray:
    """Return which of X_test (M, D), y_test (M,) a head gets right for every repeat and number of shots: (R, K, M).

    X (N, D), y (N,), units (N,): train, from which `draw_shots` drew. In every repeat its setting is chosen by
    cross-validation on the drawn rows alone, units held out whole, so that a point stands for just so many labels: val
    would bring in more labels than there are shots. grid, metric: as in `sweep`.
    """
    right = np.zeros((len(drawn), len(drawn[0]), len(y_test)), dtype=np.bool_)
    own = np.arange(len(y)) if units is None else units
    for k, first in enumerate(drawn[0]):
        for r, samples in enumerate(drawn):
            params = _choose_setting(name, X, y, own, samples[k], seed=seed, grid=grid, metric=metric)
            rows = samples[k].rows
            head = build_head(name, seed=seed, **params).fit(X[rows], y[rows])
            right[r, k] = head.predict(X_test) == y_test
            if progress is not None:
                progress(k * len(drawn) + r + 1, right.shape[0] * right.shape[1], f"{first.shots} labels per class")
    return right


def _choose_setting(
    name: str,
    X: FloatArray,
    y: AnyArray,
    units: IntArray,
    sample: Shots,
    *,
    seed: int,
    grid: Sequence[dict[str, Any]] | None,
    metric: str,
) -> dict[str, Any]:
    rows = sample.chosen_on
    rounds = _rounds(units[rows], y[rows], min(max(sample.shots, 2), MAX_FOLDS), seed)
    return sweep(name, X[rows], y[rows], rounds=rounds, grid=grid, metric=metric, seed=seed).params


def _rounds(units: IntArray, y: AnyArray, n_folds: int, seed: int) -> list[BoolArray]:
    """Return rounds, bool (n,), that hold out units (n,): folds, or each unit where a fold is all but one class."""
    n_units = len(np.unique(units))
    rounds = fold_rounds(assign_folds(units, y, min(n_folds, n_units), seed=seed))
    if all(len(np.unique(y[~held_out])) > 1 for held_out in rounds):
        return rounds
    return fold_rounds(units)
