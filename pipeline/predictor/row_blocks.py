"""Labels of rows in blocks of one size, so that those of a row do not depend on the rows that it is computed with.

A product of matrices is summed in an order that depends on the number of rows: a head gives other last digits for one
row than for the same row among others. In blocks of four rows it gives the same, wherever in the block the row is, and
in blocks of sixteen heads that compare with training rows.
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
# For heads that compare with all training rows and read these for every block: 1,024 rows of 640 numbers took k nearest
# neighbours of 2,000 training rows 2.96 s in blocks of four, 0.52 s of sixteen, and one row alone 5.3 ms and 6.1 ms.
ROWS_OF_COMPARING = 16
# An estimator of scikit-learn takes a millisecond for a call and a forest many: more rows than this are one block.
MOST_OF_FOREIGN = 64
# More rows than this are one block for any head.
MOST_ROWS = 4096


def in_blocks(X: NDArray[np.float32], compute: Callable[[NDArray[np.float32]], Answers], n_rows: int = ROWS) -> Answers:
    """Return codes (N,) and probabilities (N, C) of the rows X (N, D), N >= 1, that `compute` gives of blocks of them.

    A last block that is not full is filled up with its last row. More than MOST_ROWS rows are one block.
    """
    if len(X) > MOST_ROWS or n_rows == len(X):
        return compute(X)
    parts = (compute(_filled(X[start : start + n_rows], n_rows)) for start in range(0, len(X), n_rows))
    codes, proba = zip(*parts, strict=True)
    return np.concatenate(codes)[: len(X)], np.concatenate(proba)[: len(X)]


def rows_of_a_block(head: Any, n: int) -> int:
    """Return how many of n rows a head gets at once."""
    from featurecache.classify.heads.fitted.kinds import FittedKernel
    from featurecache.classify.heads.fitted.scored import FittedHead
    from featurecache.classify.heads.fitted.voting import FittedNeighbours

    if isinstance(head, FittedKernel | FittedNeighbours):
        return ROWS_OF_COMPARING
    return n if n > MOST_OF_FOREIGN and not isinstance(head, FittedHead) else ROWS


def tempered(head: Any, tempering: float, floor: float) -> Callable[[NDArray[np.float32]], Answers]:
    """Return what gives the codes (N,) and tempered probabilities (N, C) of rows (N, D) by a head.

    floor: of the probabilities before they are tempered.
    """
    from featurecache.classify.evaluation.calibration import temper_head

    def compute(X: NDArray[np.float32]) -> Answers:
        codes, proba = head.predict_both(X)
        return codes, temper_head(head, X, proba, tempering, floor=floor)

    return compute


def _filled(rows: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
    lack = n_rows - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], lack, axis=0)]) if lack else rows
