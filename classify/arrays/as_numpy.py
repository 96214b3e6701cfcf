"""Arrays of any kind as numpy: labels and weights, and features where a head cannot work on a tensor where it lies."""

from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray


def plain(X: Any) -> Any:
    """Return X (N, D), or numbers (N,), as numpy: a tensor from its device, shared if it can, others as they are."""
    return np.asarray(X.detach().cpu().numpy()) if hasattr(X, "detach") else X


def working(block: Any) -> FloatArray:
    """Return some rows (B, D) as float64 where they are that, else float32; a copy where that needs one."""
    rows = plain(block)
    return np.asarray(rows, dtype=np.float64 if rows.dtype == np.float64 else np.float32)


def working_dtype(X: Any) -> "np.dtype[np.floating[Any]]":
    """Return float64 for X of float64, else float32."""
    return np.dtype(np.float64 if str(X.dtype).endswith("float64") else np.float32)
