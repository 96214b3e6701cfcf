"""A fitted head from the parameters and learned values that it was saved with."""

from collections.abc import Mapping
from typing import Any

from featurecache.classify.heads.fitted.kinds import FittedKernel, FittedLinear, FittedNetwork, FittedQuadratic
from featurecache.classify.heads.fitted.scored import FittedHead
from featurecache.classify.heads.fitted.tables import ALLOWED, COMMON, LEARNED
from featurecache.classify.heads.fitted.voting import FittedNeighbours

KINDS: Mapping[str, type[FittedHead]] = {
    **dict.fromkeys(("logistic", "ridge", "linear_svm", "lda", "centroid"), FittedLinear),
    "naive_bayes": FittedQuadratic,
    "mlp": FittedNetwork,
    "rbf_svm": FittedKernel,
    "knn": FittedNeighbours,
}


def empty_head(name: str, params: Mapping[str, Any]) -> FittedHead:
    """Return a head of the table without learned values. Raises ValueError for a parameter that it does not have."""
    head = KINDS[name]()
    head.__dict__ |= {"allowed": ALLOWED[name], "learned": LEARNED[name]}
    for key, value in params.items():
        if key not in ALLOWED[name] and key not in COMMON:
            raise ValueError(f"'{key}' is no parameter of the head '{name}'")
        setattr(head, key, value)
    return head
