"""k nearest neighbours, from their rows."""

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import plain, working, working_dtype
from featurecache.classify.evaluation.calibration import temper
from featurecache.classify.heads.fitted.scored import FittedHead
from featurecache.classify.heads.shared.votes import Voters, elect
from featurecache.classify.solvers.nearest_rows import nearest_rows, zero_rows


class FittedNeighbours(FittedHead):
    """Votes of the k nearest rows_ (N, D) with codes_ (N,), each counting counts_ (N,) times: see `KNNHead`.

    factors_ (C,): what the votes of a class are multiplied with. origin_ (D,), variance_: those of the rows.
    """

    k: int
    metric: str
    sharpness: float | None
    temperature: float
    rows_: FloatArray
    codes_: IntArray
    counts_: FloatArray
    factors_: FloatArray
    origin_: FloatArray
    variance_: float
    _zeros: BoolArray

    def predict_both(self, X: FloatArray) -> tuple[AnyArray, FloatArray]:
        """Return what `predict` and `predict_proba` do, at the cost of one."""
        X = working(plain(self._checked(X))).astype(working_dtype(self.rows_), copy=False)
        zeros = self._zeros if hasattr(self, "_zeros") else zero_rows(self.rows_)  # not part of a saved head
        blank = zeros & (self.metric == "cosine")
        voters = Voters(self.codes_, self.counts_, self.factors_, self.variance_, blank)
        votes = np.zeros((len(X), len(self.classes_)), dtype=X.dtype)
        found = nearest_rows(X, self.rows_, self.k, self.metric, self.origin_, blank)
        best, proba = next(elect([self], found, voters, blank_rows(X, self.metric), votes, np.empty_like(votes)))
        return np.asarray(self.classes_[best]), temper(proba, self.temperature)


def blank_rows(X: FloatArray, metric: str) -> BoolArray:
    """Return which rows of X (N, D) have no direction, (N,), where the metric needs one."""
    return zero_rows(X) if metric == "cosine" else np.zeros(len(X), dtype=bool)
