"""Multinomial logistic regression: the linear probe itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from classify.arrays import FloatArray, IntArray
from classify.linear import LinearHead
from classify.losses import SoftmaxLoss
from classify.objective import Objective
from classify.paths import Optimum, solve_path
from classify.rows import Rows


class LogisticHead(LinearHead):
    """Softmax regression on standardised features with a ridge penalty (Cox 1958; Bishop 2006, section 4.3.4).

        minimise  C sum_i w_i (-log softmax(W z_i + b)[y_i])  +  |W|^2 / 2

    The objective of scikit-learn's LogisticRegression for three classes or more; for two classes W has two rows here,
    so that its C is twice this one. Probabilities are the softmax itself.
    """

    descends = True

    def __init__(
        self,
        C: float = 0.01,
        *,
        class_weight: str | Mapping[Any, float] | None = None,
        tol: float = 4e-3,
        max_iter: int = 500,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    @classmethod
    def _optima(
        cls, heads: Sequence[Self], rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int
    ) -> Iterator[Optimum]:
        objective = Objective(rows, codes, weights, SoftmaxLoss(), n_classes)
        tol, max_passes = min(head.tol for head in heads), max(head.max_iter for head in heads)
        return solve_path(objective, [head.C for head in heads], tol=tol, max_passes=max_passes)
