"""Hold-out masks: which rows of each round are validated on while the others are trained on."""

from collections.abc import Sequence

import numpy as np

from featurecache.base.errors import BadSplit
from featurecache.classify.arrays.array_types import BoolArray, IntArray


def val_round(n_train: int, n_rows: int) -> list[BoolArray]:
    """Return the one round, bool (N,), that trains on the first `n_train` of N rows and holds out the rest, val.

    Raises BadSplit where train or val is empty.
    """
    if n_train in (0, n_rows):
        empty, full = ("Train", "val") if n_train == 0 else ("Val", "train")
        raise BadSplit(
            f"{empty} is empty, {full} has {n_rows:,} images, and heads are trained on train and chosen on val: add "
            f"images to {empty.lower()}, or choose by cross-validation with --folds."
        )
    return [np.arange(n_rows) >= n_train]


def fold_rounds(fold: IntArray) -> list[BoolArray]:
    """Return one round, bool (N,), for every fold that is named in fold (N,): that fold is held out."""
    return [np.asarray(fold == number) for number in np.unique(fold)]


def check_rounds(rounds: Sequence[BoolArray], codes: IntArray) -> None:
    """Raise BadSplit unless every round is a bool for each row of codes (N,), and leaves some of two classes or more.

    Both val and what is trained on must have rows.
    """
    n_rows = len(codes)
    if not rounds:
        raise BadSplit("No round was given: hold out val, or each fold in turn.")
    for held_out in rounds:
        if held_out.shape != (n_rows,):
            raise BadSplit(f"A round of {len(held_out)} rows was given for {n_rows} rows: give a bool for each.")
        if not held_out.any() or held_out.all():
            raise BadSplit("A round holds out no row or all of them: train and val must both have some.")
        if len(np.unique(codes[~held_out])) < 2:
            raise BadSplit(
                "Without the rows that it holds out, a round has one class left to train on, and a head needs two: "
                "give more rows of each class, or other folds."
            )
