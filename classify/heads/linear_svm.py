"""Linear support vector machine."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.linear import LinearHead, tightest
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.solvers.linear.newton import solve_margins
from featurecache.classify.solvers.linear.optimum import Optimum

# The objective is then within 1e-3 of its minimum, relatively, by a wide margin: 2e-5 was measured.
SLOPE = 2e-3


class LinearSVMHead(LinearHead):
    """One-versus-rest linear SVM with squared hinge loss on standardised features (Fan et al. 2008, LIBLINEAR).

        minimise  C sum_i sum_c w_i max(0, 1 - t_ic (W z_i + b)_c)^2  +  |W|^2 / 2

    The problem of scikit-learn's LinearSVC, but the intercept is not penalised. Solved by `newton`. The scores are
    margins, not log odds: see `temperature` in `ScoredHead`. `tol` is the slope at which an optimum counts as found;
    None: 2e-3 for float32, 1e-9 for float64.
    """

    descends = True
    climbs = "C"
    allowed: ClassVar[Allowed] = ALLOWED["linear_svm"]
    learned: ClassVar[Learned] = LEARNED["linear_svm"]

    def __init__(
        self,
        C: float = 0.001,
        *,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
        tol: float | None = None,
        max_iter: int = 500,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.temperature = temperature
        self.tol = tol
        self.max_iter = max_iter

    @classmethod
    def _optima(
        cls, heads: Sequence[Self], rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int
    ) -> Iterator[Optimum]:
        tol, limit, strengths = (
            tightest([h.tol for h in heads], rows, SLOPE),
            max(h.max_iter for h in heads),
            [h.C for h in heads],
        )
        return solve_margins(rows, codes, weights, n_classes, strengths, tol=tol, max_steps=limit)
