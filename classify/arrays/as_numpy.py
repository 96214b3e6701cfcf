"""Arrays of any kind as numpy: labels and weights, and features for heads that work on numpy only."""

from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray


def plain(X: Any) -> Any:
    """Return an array as numpy: a tensor copied from its device, or sharing its memory on the CPU; others unchanged."""
    return np.asarray(X.detach().cpu().numpy()) if hasattr(X, "detach") else X


def working(block: Any) -> FloatArray:
    """Return rows (B, D) as float64 if they are float64, else as float32, copied only if needed."""
    rows = plain(block)
    return np.asarray(rows, dtype=np.float64 if rows.dtype == np.float64 else np.float32)


def working_dtype(X: Any) -> "np.dtype[np.floating[Any]]":
    """Return float64 for X of float64, else float32."""
    return np.dtype(np.float64 if str(X.dtype).endswith("float64") else np.float32)
