"""Validation of the arguments of `fit` and `predict`, as scikit-learn's contract asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import is_torch_array

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import plain
from featurecache.classify.arrays.namespaces import namespace_of
from featurecache.classify.heads.shared.parameters import check_class_weight, check_common, check_parameters

# float32 features stay float32, half the memory and twice the speed; anything else becomes float64.
DTYPES = (np.float64, np.float32)
# Rows checked together.
BLOCK = 4096


def begin_fit(head: Any, X: Any, y: Any) -> tuple[FloatArray, IntArray]:
    """Check X (N, D) and labels y (N,), set `classes_` and `n_features_in_`, return X and the class codes (N,).

    Raises ValueError on parameters that are not possible, on NaN, on shapes that disagree, on labels that are not
    classes, and on fewer than two classes.
    """
    check_parameters(head)
    y = plain(y)
    if _is_plain(head, X) and _are_plain_labels(y, len(X)):
        X = _check_rows(X)
        head.n_features_in_ = X.shape[1]
    else:
        X, y = _check_by_sklearn(head, X, y)
    head.classes_, codes = np.unique(y, return_inverse=True)
    if len(head.classes_) < 2:
        only = head.classes_.tolist()[0]
        raise ValueError(f"Found 1 class, {only!r}, in {len(y)} rows: a head needs at least two classes.")
    return X, codes


def _check_by_sklearn(head: Any, X: Any, y: Any) -> tuple[Any, AnyArray]:
    """Return X (N, D) and labels y (N,) as scikit-learn takes what may be anything; tensors and float16 as they are."""
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import column_or_1d, validate_data

    if _is_checked_here(X):
        y = column_or_1d(y)
        X = _check_rows(X)
        if len(X) != len(y):
            raise ValueError(f"X has shape {tuple(X.shape)}: give one row of features for each of the {len(y)} labels.")
        head.n_features_in_ = X.shape[1]
    else:
        X, y = validate_data(head, X, y, dtype=DTYPES)
    check_classification_targets(y)
    return X, y


def _is_plain(head: Any, X: Any) -> bool:
    """Return whether X is an array (N, D) of float32 or float64, and the head knows no names of its columns.

    Of what scikit-learn checks then only NaN is left, which is sought without it: importing it takes longer than a fit.
    """
    is_array = type(X) is np.ndarray and X.ndim == 2 and all(X.shape)
    return is_array and X.dtype in DTYPES and X.dtype.isnative and not hasattr(head, "feature_names_in_")


def _are_plain_labels(y: Any, n: int) -> bool:
    """Return whether y are n whole numbers or strings."""
    return type(y) is np.ndarray and y.shape == (n,) and y.dtype.kind in "iubU"


def _is_checked_here(X: Any) -> bool:
    """Return whether X is a tensor or float16, which scikit-learn would copy to the CPU or to float64."""
    return is_torch_array(X) or getattr(X, "dtype", None) == np.float16


def _check_rows(X: Any) -> Any:
    """Return X (N, D), detached if it is a tensor; raises ValueError for other shapes, and for NaN, by blocks."""
    if len(X.shape) != 2 or not all(X.shape):
        raise ValueError(f"X has shape {tuple(X.shape)}: give features (N, D) with at least one row and one column.")
    X = X.detach() if is_torch_array(X) else X
    xp = namespace_of(X)
    for start in range(0, X.shape[0], BLOCK):
        block = X[start : start + BLOCK]
        with np.errstate(over="ignore", invalid="ignore"):
            if bool(xp.isfinite(xp.sum(block))):  # a third of the time that each number takes
                continue
        finite = xp.isfinite(block)
        if not bool(xp.all(finite)):
            row = start + int(xp.argmin(xp.astype(xp.all(finite, axis=1), xp.uint8)))
            raise ValueError(f"Input X contains NaN or infinity, first in row {row}.")
    return X


@dataclass(frozen=True)
class GridRows:
    """Checked rows that all settings of a grid are tried on: X (N, D), their classes (C,) and class codes (N,).

    weights (N,): their sample weights, 1 where none were given.
    """

    X: FloatArray
    codes: IntArray
    classes: AnyArray
    weights: FloatArray

    def labels(self, held_out: BoolArray) -> AnyArray:
        """Return the labels (M,) of the rows that a round holds out, bool (N,)."""
        return np.asarray(self.classes[self.codes[held_out]])

    def trained_weights(self, class_weight: str | Mapping[Any, float] | None, held_out: BoolArray) -> FloatArray:
        """Return the weight (N,) of every row in a round: 0 where it is held out, else that of a fit on the others.

        "balanced" weighs a class by the rows that are trained on, and no label that is held out enters.
        """
        weights = np.where(held_out, 0.0, self.weights)
        factors = self.class_factors(class_weight, weights, held_out)
        return np.asarray(weights * factors[self.codes])

    def class_factors(
        self, class_weight: str | Mapping[Any, float] | None, weights: FloatArray, held_out: BoolArray
    ) -> FloatArray:
        """Return `class_factors` (C,) of a fit on the rows with these weights (N,); 0 for absent classes."""
        total = np.bincount(self.codes, weights, minlength=len(self.classes)).astype(np.float64)
        return factors_among(class_weight, self.classes, total, self.present(held_out))

    def present(self, held_out: BoolArray) -> BoolArray:
        """Return which classes (C,) have rows that are not held out, bool (N,)."""
        return np.asarray(np.bincount(self.codes[~held_out], minlength=len(self.classes)) > 0)


def begin_grid(heads: Sequence[Any], X: Any, y: Any, sample_weight: Any = None) -> GridRows:
    """Check X (N, D), labels y (N,) and weights (N,) once for all heads of a grid, and set their `classes_`.

    Raises ValueError as `begin_fit` does, and for heads that differ in what they must have in common.
    """
    for head in heads:
        check_parameters(head)
    check_common(heads)
    checked, codes = begin_fit(heads[0], X, y)
    classes = heads[0].classes_
    for head in heads[1:]:
        head.classes_, head.n_features_in_ = classes, heads[0].n_features_in_
    return GridRows(checked, codes, classes, row_weights(None, classes, codes, sample_weight))


def row_weights(
    class_weight: str | Mapping[Any, float] | None, classes: AnyArray, codes: IntArray, sample_weight: Any = None
) -> FloatArray:
    """Return the weight (N,), float64, of every row: that of its class times its own.

    "balanced" gives all classes the same sum, that of all weights over C; a mapping names the weight of a label, 1 for
    those it leaves out. Raises ValueError for other class weights, and for weights of either kind that are not finite
    numbers of 0 or more.
    """
    own = np.ones(len(codes)) if sample_weight is None else np.asarray(plain(sample_weight), dtype=np.float64)
    if own.shape != (len(codes),):
        raise ValueError(f"sample_weight has shape {own.shape}: give one weight for each of the {len(codes)} rows.")
    if not np.isfinite(own).all() or (own < 0).any() or not own.any():
        raise ValueError("sample_weight must be finite and not negative, and some row must weigh more than zero.")
    if class_weight is None:
        return own
    total = np.bincount(codes, own, minlength=len(classes)).astype(np.float64)
    return np.asarray(own * class_factors(class_weight, classes, total)[codes])


def class_factors(class_weight: str | Mapping[Any, float] | None, classes: AnyArray, total: FloatArray) -> FloatArray:
    """Return what the weights of the rows of each class are multiplied with, (C,), where their sums are total (C,).

    See `row_weights`, which raises what this does.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if isinstance(class_weight, Mapping):
        check_class_weight(class_weight)
        return np.array([class_weight.get(label, 1.0) for label in classes.tolist()], dtype=np.float64)
    if class_weight != "balanced":
        raise ValueError(f"class_weight={class_weight!r} is unknown: use None, 'balanced' or a dict of label: weight.")
    return np.asarray(total.sum() / (len(classes) * np.where(total > 0, total, 1.0)))


def factors_among(
    class_weight: str | Mapping[Any, float] | None, classes: AnyArray, total: FloatArray, present: BoolArray
) -> FloatArray:
    """Return `class_factors` (C,) of a fit on rows of the present classes, bool (C,); 0 for the others."""
    factors = np.zeros(len(classes))
    factors[present] = class_factors(class_weight, classes[present], total[present])
    return factors


def begin_predict(head: Any, X: Any) -> FloatArray:
    """Check that the head is fitted and that X (M, D) fits it, and return X.

    Raises scikit-learn's NotFittedError, and ValueError where X has NaN, another shape or another number of columns.
    """
    is_plain = hasattr(head, "n_features_in_") and _is_plain(head, X)
    if not is_plain:
        from sklearn.utils.validation import check_is_fitted, validate_data

        check_is_fitted(head)
        if not _is_checked_here(X):
            return np.asarray(validate_data(head, X, reset=False, dtype=DTYPES))
    X = _check_rows(X)
    found, wanted = X.shape[1], head.n_features_in_
    if found != wanted:
        raise ValueError(f"X has {found} features, but {type(head).__name__} is expecting {wanted} features as input.")
    return X  # type: ignore[no-any-return]


def trained_classes(codes: IntArray, weights: FloatArray, n_classes: int) -> BoolArray:
    """Return which classes (C,) have rows with a weight, for class codes and weights (N,)."""
    return np.asarray(np.bincount(codes, weights, minlength=n_classes) > 0)


def codes_among(classes: AnyArray, y: AnyArray) -> tuple[IntArray, BoolArray]:
    """Return the position in the sorted classes (C,) of each label y (M,), and which labels are there at all."""
    codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    return codes, np.asarray(classes[codes] == y)
