"""scikit-learn's contract at the doors of `fit` and `predict`, said once for every head."""

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from classify.arrays import AnyArray, BoolArray, FloatArray, IntArray

# float32 features stay float32, half the memory and twice the speed; anything else becomes float64.
DTYPES = (np.float64, np.float32)


def begin_fit(head: Any, X: Any, y: Any) -> tuple[FloatArray, IntArray]:
    """Check X (N, D) and labels y (N,), set `classes_` and `n_features_in_`, return X and the class codes (N,).

    Raises ValueError on NaN, on shapes that disagree, on labels that are not classes, and on fewer than two classes.
    """
    X, y = validate_data(head, X, y, dtype=DTYPES)
    check_classification_targets(y)
    head.classes_, codes = np.unique(y, return_inverse=True)
    if len(head.classes_) < 2:
        raise ValueError(f"Found 1 class, {head.classes_[0]!r}, in {len(y)} rows: a head needs at least two classes.")
    return X, codes


def begin_predict(head: Any, X: Any) -> FloatArray:
    """Check that the head is fitted and that X (M, D) fits it, and return X.

    Raises scikit-learn's NotFittedError, and ValueError where X has another number of columns.
    """
    check_is_fitted(head)
    checked: FloatArray = validate_data(head, X, reset=False, dtype=DTYPES)
    return checked


def codes_among(classes: AnyArray, y: AnyArray) -> tuple[IntArray, BoolArray]:
    """Return the position in the sorted classes (C,) of each label y (M,), and which labels are there at all."""
    codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    return codes, np.asarray(classes[codes] == y)
