"""Linear heads: whatever they minimise, in the end they are coef_ (C, D) and intercept_ (C,) on raw features."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

from classify.arrays import FloatArray, IntArray
from classify.descent import Loss, descend
from classify.scaling import Scaling, fit_scaling
from classify.scored import ScoredHead
from classify.spectrum import decompose


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


class DescentHead(LinearHead):
    """A linear head whose strengths C are solved one after the other by `descend`; a subclass names its loss."""

    loss: ClassVar[Loss]
    C: float
    tol: float
    max_iter: int
    n_iter_: int

    def _solve(self, heads: Sequence[Self], X: FloatArray, codes: IntArray) -> Iterator[Self]:
        scaling = fit_scaling(X)
        Z = scaling.apply(X)
        strengths = [head.C for head in heads]
        optima = descend(self.loss, Z, codes, decompose(Z), strengths, tol=self.tol, max_iter=self.max_iter)
        for head, found in zip(heads, optima, strict=True):
            head.n_iter_ = found.n_iter
            yield head._learn(scaling, found.weights, found.intercept, X, found.note)
