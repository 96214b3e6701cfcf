"""Labels of rows in blocks of one size, so that those of a row do not depend on the rows that it is computed with.

A product of matrices is summed in an order that depends on the number of rows: a head gives other last digits for one
row than for the same row among others. In blocks of four rows it gives the same, wherever in the block the row is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Answers = tuple[NDArray[np.int64], NDArray[np.floating[Any]]]

# Kernels for products of few rows take four at a time.
ROWS = 4
# Heads that compare with all training rows read these for every block: more rows than this are computed at once.
MOST_ROWS = 4096


def in_blocks(X: NDArray[np.float32], compute: Callable[[NDArray[np.float32]], Answers]) -> Answers:
    """Return codes (N,) and probabilities (N, C) of the rows X (N, D), N >= 1, that `compute` gives of blocks of them.

    A last block that is not full is filled up with its last row. More than MOST_ROWS rows are one block.
    """
    if len(X) > MOST_ROWS:
        return compute(X)
    codes, proba = zip(*(compute(_filled(X[start : start + ROWS])) for start in range(0, len(X), ROWS)), strict=True)
    return np.concatenate(codes)[: len(X)], np.concatenate(proba)[: len(X)]


def tempered(head: Any, tempering: float, floor: float) -> Callable[[NDArray[np.float32]], Answers]:
    """Return what gives the codes (N,) and tempered probabilities (N, C) of rows (N, D) by a head.

    floor: of the probabilities before they are tempered.
    """
    from featurecache.classify.evaluation.calibration import temper_head

    def compute(X: NDArray[np.float32]) -> Answers:
        codes, proba = head.predict_both(X)
        return codes, temper_head(head, X, proba, tempering, floor=floor)

    return compute


def _filled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lack = ROWS - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], lack, axis=0)]) if lack else rows
