"""The bases of a head: scikit-learn's, or small ones with the same methods in a process that only runs a command.

There a head meets nothing of scikit-learn's, of which `sklearn.base` alone takes 1.5 s to import (with scipy.stats and
pandas): as long as a whole `classify --heads ridge` on features of 5,000 images.
"""

import inspect
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featurecache.base.startup import is_command_process
from featurecache.classify.arrays.array_types import AnyArray, FloatArray

__all__ = ["Classifier", "Estimator", "PlainClassifier", "PlainEstimator"]


class PlainEstimator:
    """The parameters of an estimator, as scikit-learn's BaseEstimator has them."""

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; they are values, so `deep` makes no difference."""
        return {name: getattr(self, name) for name in self._get_param_names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name. Raises ValueError for one that there is not."""
        names = self._get_param_names()
        for name, value in params.items():
            if name not in names:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: {names!r}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value != defaults[name].default]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """Return the tags of a classifier, for functions of scikit-learn."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags("classifier", TargetTags(required=True), classifier_tags=ClassifierTags())


class PlainClassifier:
    """The score of a classifier, as scikit-learn's ClassifierMixin has it."""

    def score(self, X: FloatArray, y: AnyArray, sample_weight: FloatArray | None = None) -> float:
        """Return the share of the rows of X (M, D) whose label y (M,) is predicted, by weights (M,)."""
        return float(np.average(self.predict(X) == y, weights=sample_weight))  # type: ignore[attr-defined]


if TYPE_CHECKING or not is_command_process():
    from sklearn.base import BaseEstimator as Estimator
    from sklearn.base import ClassifierMixin as Classifier
else:
    Estimator, Classifier = PlainEstimator, PlainClassifier
