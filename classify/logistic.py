"""Multinomial logistic regression: the linear probe itself."""

from collections.abc import Iterator, Sequence
from typing import Self

from classify.arrays import FloatArray, IntArray
from classify.descent import SoftmaxLoss, descend
from classify.linear import LinearHead
from classify.scaling import fit_scaling
from classify.spectrum import decompose


class LogisticHead(LinearHead):
    """Softmax regression on standardised features with a ridge penalty (Cox 1958; Bishop 2006, section 4.3.4).

        minimise  C sum_i -log softmax(W z_i + b)[y_i]  +  |W|^2 / 2

    The objective of scikit-learn's LogisticRegression for three classes or more; for two classes W has two rows here,
    so that its C is twice this one. Probabilities are the softmax itself.
    """

    def __init__(self, C: float = 0.01, *, tol: float = 1e-4, max_iter: int = 500) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter

    def _solve(self, heads: Sequence[Self], X: FloatArray, codes: IntArray) -> Iterator[Self]:
        scaling = fit_scaling(X)
        Z = scaling.apply(X)
        strengths = [head.C for head in heads]
        optima = descend(SoftmaxLoss(), Z, codes, decompose(Z), strengths, tol=self.tol, max_iter=self.max_iter)
        for head, found in zip(heads, optima, strict=True):
            head.n_iter_ = found.n_iter
            yield head._learn(scaling, found.weights, found.intercept, X, found.note)
