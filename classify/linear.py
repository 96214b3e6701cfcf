"""Linear heads: whatever they minimise, in the end they are coef_ (C, D) and intercept_ (C,) on raw features."""

from typing import Self

from classify.arrays import FloatArray
from classify.scaling import Scaling
from classify.scored import ScoredHead


class LinearHead(ScoredHead):
    """Scores are X coef_^T + intercept_.

    `coef_` always has one row per class, for two classes as well; the standardisation is folded into it, so a fitted
    linear head carries no scaler.
    """

    coef_: FloatArray
    intercept_: FloatArray

    def _scores(self, X: FloatArray) -> FloatArray:
        return X @ self.coef_.T.astype(X.dtype) + self.intercept_.astype(X.dtype)

    def _learn(
        self, scaling: Scaling, weights: FloatArray, intercept: FloatArray, like: FloatArray, note: str = ""
    ) -> Self:
        """Keep weights (C, D) and intercept (C,), found for standardised columns, in the dtype of `like`."""
        coef, folded = scaling.fold(weights, intercept)
        self.coef_, self.intercept_ = coef.astype(like.dtype), folded.astype(like.dtype)
        self.converged_, self.note_ = not note, note
        return self
