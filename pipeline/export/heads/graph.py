"""One fitted head as an ONNX model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import UsageError
from featurecache.classify.heads.fitted.kinds import FittedKernel, FittedLinear, FittedNetwork, FittedQuadratic
from featurecache.classify.heads.fitted.voting import FittedNeighbours
from featurecache.export.heads.kernel import kernel_answers
from featurecache.export.heads.linear import linear_answers, network_answers, quadratic_answers
from featurecache.export.heads.neighbours import neighbour_answers
from featurecache.export.heads.softmax import Answers, tempered
from featurecache.export.nodes import Nodes
from featurecache.extract.engines.export import MAX_BYTES

if TYPE_CHECKING:
    import onnx

# Its input and its outputs.
FEATURES, PROBABILITIES, CODES = "features", "probabilities", "codes"

KINDS: tuple[tuple[type, Callable[[Nodes, Any, str], Answers]], ...] = (
    (FittedLinear, linear_answers),
    (FittedQuadratic, quadratic_answers),
    (FittedNetwork, network_answers),
    (FittedKernel, kernel_answers),
    (FittedNeighbours, neighbour_answers),
)


def head_graph(head: Any, *, n_features: int, temperature: float = 1.0, floor: float = 0.0) -> onnx.ModelProto:
    """Return a fitted head as a model: `features`, float32 (B, D), to `probabilities` and `codes`.

    probabilities: float32 (B, C), what `predict_proba` gives, tempered as by `temper_head` with temperature and floor.
    codes: int64 (B,), the column of the label that `predict` gives. Columns are those of the head's classes_.

    Raises UsageError for a head that cannot be exported, with the reason.
    """
    from onnx import TensorProto, helper

    _check_size(head)
    nodes = Nodes()
    own = _answers(nodes, head, n_features)
    proba = nodes.cast(tempered(nodes, own, temperature, floor), np.float32)
    outputs = [
        helper.make_tensor_value_info(nodes.add("Identity", proba, name=PROBABILITIES), TensorProto.FLOAT,
                                      ["B", len(head.classes_)]),
        helper.make_tensor_value_info(nodes.add("Identity", own.codes, name=CODES), TensorProto.INT64, ["B"]),
    ]  # fmt: skip
    return nodes.model("head", [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["B", n_features])], outputs)


def _answers(nodes: Nodes, head: Any, n_features: int) -> Answers:
    """Add the nodes of a head. Raises UsageError for one that cannot be exported."""
    for kind, write in KINDS:
        if isinstance(head, kind):
            return write(nodes, head, FEATURES)
    if hasattr(head, "estimator_"):
        from featurecache.export.heads.sklearn import sklearn_answers

        return sklearn_answers(nodes, head, FEATURES, n_features)
    raise UsageError(f"{type(head).__name__} is no head that can be exported: choose another with --head.")


def _check_size(head: Any) -> None:
    """Raise UsageError where a head is larger than an ONNX file may be."""
    arrays = [value for value in vars(head).values() if isinstance(value, np.ndarray)]
    n_bytes = sum(array.size * max(array.itemsize, 4) for array in arrays)
    if n_bytes > MAX_BYTES:
        raise UsageError(
            f"The head keeps {n_bytes / 1e9:.1f} GB of numbers, and an ONNX file holds at most 2.1 GB: choose another "
            "with --head."
        )
