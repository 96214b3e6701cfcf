"""Any scikit-learn classifier as a head, with its probabilities and a note on convergence."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import has_fit_parameter

from featurecache.base.errors import HeadFailed
from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray
from featurecache.classify.arrays.as_numpy import plain
from featurecache.classify.arrays.softmax import softmax, two_columns
from featurecache.classify.heads.shared.learned import FITTED, Learned
from featurecache.classify.heads.shared.parameters import POSITIVE, Allowed
from featurecache.classify.heads.shared.trials import Trial, try_each
from featurecache.classify.heads.shared.validation import begin_fit, begin_predict, row_weights

# What scikit-learn's classifiers raise on rows that they cannot take; CategoricalNB an IndexError for a new category.
GIVES_UP = (ValueError, IndexError)


def _has_only_scores(head: "ForeignHead") -> bool:
    estimator = getattr(head, "estimator_", head.estimator)
    return hasattr(estimator, "decision_function") and not hasattr(estimator, "predict_proba")


class ForeignHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier, fitted as it is; `estimator_` is the fitted one.

    Probabilities are its own where it has them; else softmax(decision scores / temperature); else, with nothing but
    predictions, 1 for the prediction and 0 for the rest.
    """

    allowed: ClassVar[Allowed] = {"temperature": POSITIVE}
    common: ClassVar[tuple[str, ...]] = ()
    learned: ClassVar[Learned] = FITTED
    classes_: AnyArray

    def __init__(self, estimator: Any, *, temperature: float = 1.0) -> None:
        self.estimator = estimator
        self.temperature = temperature

    def fit(self, X: FloatArray, y: AnyArray, sample_weight: FloatArray | None = None) -> Self:
        """Fit a clone of the estimator on X (N, D), labels y (N,) and weights (N,) where some are given.

        Raises ValueError for weights where the estimator takes none, HeadFailed where it cannot be fitted.
        """
        X, codes = begin_fit(self, X, y)
        X = plain(X)
        self.estimator_ = clone(self.estimator)
        if sample_weight is not None:
            if not has_fit_parameter(self.estimator_, "sample_weight"):
                raise ValueError(f"{type(self.estimator).__name__} takes no sample weights: leave them out.")
            sample_weight = row_weights(None, self.classes_, codes, sample_weight)
            if len(np.unique(codes[sample_weight > 0])) < 2:
                raise ValueError("Only 1 class has rows with a weight: a head needs at least two classes.")
        with naming(self.estimator_, "be fitted"):
            self.note_ = fit_noting_convergence(self.estimator_, X, self.classes_[codes], sample_weight=sample_weight)
        self.converged_ = not self.note_
        return self

    def predict(self, X: FloatArray) -> AnyArray:
        """Return what the estimator predicts for X (M, D): labels (M,). Raises HeadFailed where it cannot."""
        X = plain(begin_predict(self, X))
        with naming(self.estimator_, "predict"):
            predicted: AnyArray = self.estimator_.predict(X)
        return predicted

    @available_if(_has_only_scores)  # type: ignore[untyped-decorator]
    def decision_function(self, X: FloatArray) -> FloatArray:
        """Return the estimator's scores of X (M, D), where it has scores but no probabilities: (M, C) or (M,)."""
        X = plain(begin_predict(self, X))
        with naming(self.estimator_, "predict"):
            return np.asarray(self.estimator_.decision_function(X))

    def predict_proba(self, X: FloatArray) -> FloatArray:
        """Return the class probabilities (M, C) of X (M, D)."""
        if hasattr(self, "decision_function"):
            return softmax(two_columns(self.decision_function(X)) / self.temperature)
        X = plain(begin_predict(self, X))
        if hasattr(self.estimator_, "predict_proba"):
            with naming(self.estimator_, "predict"):
                return np.asarray(self.estimator_.predict_proba(X))
        return np.asarray(self.predict(X)[:, None] == self.classes_, dtype=np.float64)

    def predict_both(self, X: FloatArray) -> tuple[AnyArray, FloatArray]:
        """Return what `predict` and `predict_proba` do: an estimator's own need not agree."""
        return self.predict(X), self.predict_proba(X)

    @classmethod
    def try_grid(
        cls,
        heads: Sequence[Self],
        X: FloatArray,
        y: AnyArray,
        rounds: Sequence[BoolArray],
        sample_weight: FloatArray | None = None,
    ) -> Iterator[tuple[int, int, Trial]]:
        """Fit the heads in every round, one after the other, and yield a trial of each, see `heads.shared.trials`."""
        return try_each(heads, X, y, rounds, sample_weight)


@contextmanager
def naming(estimator: Any, what: str) -> Iterator[None]:
    """Raise HeadFailed, with the estimator's name and message, where it fails inside the block."""
    try:
        yield
    except GIVES_UP as error:
        message = " ".join(str(error).split()).rstrip(".")
        raise HeadFailed(
            f"{type(estimator).__name__} cannot {what}: {message}. Give more images, or leave this head out."
        ) from error


def fit_noting_convergence(
    estimator: Any, X: FloatArray, y: AnyArray, *, sample_weight: FloatArray | None = None
) -> str:
    """Fit a scikit-learn estimator; return its warning about convergence, or an empty text. Other warnings pass on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(X, y, **({} if sample_weight is None else {"sample_weight": sample_weight}))
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return messages[0].split("\n")[0] if messages else ""
