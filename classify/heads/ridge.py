"""Ridge regression on the class signs: every strength from one eigendecomposition."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.shared.learned import Learned
from featurecache.classify.heads.shared.linear import LinearHead
from featurecache.classify.heads.shared.parameters import Allowed
from featurecache.classify.solvers.covariance import SignRegression, single_ridge, spectra
from featurecache.classify.solvers.linear.optimum import Optimum


class RidgeHead(LinearHead):
    """Least squares from standardised features to +1 for the true class and -1 for the others.

        minimise  sum_i w_i |W z_i + b - t_i|^2  +  alpha |W|^2

    The problem of scikit-learn's RidgeClassifier (Hoerl and Kennard 1970), solved for every strength by one
    eigendecomposition, see `SignRegression`. The scores approximate signs, not log odds: see `temperature` in
    `ScoredHead`.
    """

    allowed: ClassVar[Allowed] = ALLOWED["ridge"]
    learned: ClassVar[Learned] = LEARNED["ridge"]

    def __init__(
        self,
        alpha: float = 1000.0,
        *,
        class_weight: str | Mapping[Any, float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.alpha = alpha
        self.class_weight = class_weight
        self.temperature = temperature

    @classmethod
    def _optima(
        cls, heads: Sequence[Self], rows: Rows, codes: IntArray, weights: FloatArray, n_classes: int
    ) -> Iterator[Optimum]:
        if len(heads) == 1:
            for number, found in enumerate(single_ridge(rows, codes, weights, n_classes, heads[0].alpha)):
                yield Optimum(0, number, *found, 1, 0.0, 0.0, "")
            return
        rounds = [SignRegression(spectrum) for spectrum in spectra(rows, codes, weights, n_classes)]
        for setting, head in enumerate(heads):
            for number, regression in enumerate(rounds):
                yield Optimum(setting, number, *regression.solve(head.alpha), 1, 0.0, 0.0, "")
