"""Multinomial logistic regression, the linear probe."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.linear import LinearHead, tightest
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.solvers.linear.losses import SoftmaxLoss
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.optimum import Optimum
from featurecache.classify.solvers.linear.regularization_path import solve_path

# The objective is then within 1e-4 of its minimum, relatively, by a wide margin: 1e-5 was measured.
SLOPE = 4e-3


class LogisticHead(LinearHead):
    """Softmax regression on standardised features with a ridge penalty (Cox 1958; Bishop 2006, section 4.3.4).

        minimise  C sum_i w_i (-log softmax(W z_i + b)[y_i])  +  |W|^2 / 2

    The objective of scikit-learn's LogisticRegression for three classes or more; for two classes W has two rows here,
    so that its C is twice this one. Probabilities are the softmax itself. `tol` is the slope at which an optimum counts
    as found, see `classify.solvers.linear.lbfgs`; None: 4e-3 for float32, 1e-9 for float64.
    """

    descends = True
    climbs = "C"
    allowed: ClassVar[Allowed] = ALLOWED["logistic"]
    learned: ClassVar[Learned] = LEARNED["logistic"]

    def __init__(
        self,
        C: float = 0.01,
        *,
        class_weight: str | Mapping[Any, float] | None = None,
        tol: float | None = None,
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
        tol, max_passes = tightest([head.tol for head in heads], rows, SLOPE), max(head.max_iter for head in heads)
        return solve_path(objective, [head.C for head in heads], tol=tol, max_passes=max_passes)
