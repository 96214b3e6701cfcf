"""Checks of the rows of features to predict."""

from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray
from featurecache.classify.arrays.as_numpy import plain

# Rows checked together.
BLOCK = 4096


def check_rows(X: Any, head: Any) -> FloatArray:
    """Return X (M, D) as numpy: float16, float32 or float64 as they are, other numbers as float64.

    Raises ValueError where X has NaN, infinity or complex numbers, another shape, or another number of columns than
    the head.
    """
    X = np.asarray(plain(X))
    if X.dtype.kind == "c":
        raise ValueError("X has complex numbers: give real ones.")
    if X.dtype.kind != "f" or X.dtype.itemsize > 8:
        X = X.astype(np.float64)
    if X.ndim != 2 or not all(X.shape):
        raise ValueError(f"X has shape {X.shape}: give features (N, D) with at least one row and one column.")
    for start in range(0, len(X), BLOCK):
        is_finite = np.isfinite(X[start : start + BLOCK]).all(axis=1)
        if not is_finite.all():
            raise ValueError(f"Input X contains NaN or infinity, first in row {start + int(is_finite.argmin())}.")
    found, wanted = X.shape[1], head.n_features_in_
    if found != wanted:
        raise ValueError(f"X has {found} features, but {type(head).__name__} is expecting {wanted} features as input.")
    checked: FloatArray = X
    return checked
