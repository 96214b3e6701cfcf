"""Few labels per class: which rows, how a head's setting is chosen among so few, and how well it does on test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.arrays import AnyArray, FloatArray, IntArray
from classify.errors import BadLabels
from classify.heads import build_head
from classify.rounds import fold_rounds
from classify.splits import assign_folds
from classify.sweep import sweep

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


def draw_shots(y: IntArray, shots: Sequence[int], repeats: int, *, seed: int = 0) -> list[list[Shots]]:
    """Return for each repeat its samples of codes y (N,), fewest labels first; each contains the one before it.

    Numbers of shots that no class has are left out. Raises BadLabels where fewer than two classes have two rows, the
    least that a setting can be chosen on.
    """
    order, counts = np.unique(y, return_counts=True)
    if np.sum(counts >= 2) < 2:
        raise BadLabels("Fewer than two classes have two training images: give more images, or no --shots.")
    wanted = [k for k in sorted(set(shots)) if k <= counts.max()]
    drawn = []
    for repeat in range(repeats):
        rng = np.random.default_rng((seed, repeat))
        shuffled = [rng.permutation(np.flatnonzero(y == c)) for c in order]
        drawn.append([Shots(k, repeat, _first(shuffled, k), _first(shuffled, max(k, 2))) for k in wanted])
    return drawn


def _first(shuffled: Sequence[IntArray], k: int) -> IntArray:
    return np.concatenate([rows[:k] for rows in shuffled])


def try_shots(
    name: str,
    X: FloatArray,
    y: IntArray,
    X_test: FloatArray,
    y_test: IntArray,
    drawn: Sequence[Sequence[Shots]],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> FloatArray:
    """Return the accuracy on X_test (M, D), y_test (M,) of a head for every repeat and number of shots: (R, K).

    X (N, D), y (N,): train, from which `draw_shots` drew. Its setting is chosen by cross-validation on drawn rows
    alone, so that a point stands for just so many labels: val would bring in more labels than there are shots. It is
    chosen in the first repeat and kept in the others, since sweeps, not fits, are what takes the time.
    """
    accuracy = np.zeros((len(drawn), len(drawn[0])))
    for k, first in enumerate(drawn[0]):
        params = _choose(name, X, y, first, seed)
        for r, samples in enumerate(drawn):
            rows = samples[k].rows
            head = build_head(name, seed=seed, **params).fit(X[rows], y[rows])
            accuracy[r, k] = np.mean(head.predict(X_test) == y_test)
            if progress is not None:
                progress(k * len(drawn) + r + 1, accuracy.size, f"{first.shots} labels per class")
    return accuracy


def _choose(name: str, X: FloatArray, y: AnyArray, sample: Shots, seed: int) -> dict[str, Any]:
    rows = sample.chosen_on
    folds = assign_folds(np.arange(len(rows)), y[rows], min(max(sample.shots, 2), MAX_FOLDS), seed=seed)
    return sweep(name, X[rows], y[rows], rounds=fold_rounds(folds), seed=seed).params
