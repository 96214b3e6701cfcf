"""One fitted head as an ONNX model, and the mean of several, each on its own features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import UsageError
from featurecache.classify.heads.fitted.kinds import FittedKernel, FittedLinear, FittedNetwork, FittedQuadratic
from featurecache.classify.heads.fitted.voting import FittedNeighbours
from featurecache.export.heads.kernel import kernel_answers
from featurecache.export.heads.linear import linear_answers, network_answers, quadratic_answers
from featurecache.export.heads.neighbours import neighbour_answers
from featurecache.export.heads.nodes import Nodes
from featurecache.export.heads.softmax import Answers, tempered
from featurecache.extract.engines.export import MAX_BYTES

if TYPE_CHECKING:
    import onnx

KINDS: tuple[tuple[type, Callable[[Nodes, Any, str], Answers]], ...] = (
    (FittedLinear, linear_answers),
    (FittedQuadratic, quadratic_answers),
    (FittedNetwork, network_answers),
    (FittedKernel, kernel_answers),
    (FittedNeighbours, neighbour_answers),
)


@dataclass(frozen=True)
class Member:
    """A fitted head of an ensemble, its number D of features, and the name of the input that has them.

    temperature, floor: those that its probabilities are tempered with.
    """

    head: Any
    n_features: int
    features: str = "features"
    temperature: float = 1.0
    floor: float = 0.0


def head_graph(head: Any, *, n_features: int, temperature: float = 1.0, floor: float = 0.0) -> onnx.ModelProto:
    """Return a fitted head as a model: `features`, float32 (B, D), to `probabilities` and `codes`.

    probabilities: float32 (B, C), what `predict_proba` gives, tempered as by `temper_head` with temperature and floor.
    codes: int64 (B,), the column of the label that `predict` gives. Columns are those of the head's classes_.

    Raises UsageError for a head that cannot be exported, with the reason.
    """
    return ensemble_graph([Member(head, n_features, temperature=temperature, floor=floor)])


def ensemble_graph(members: Sequence[Member]) -> onnx.ModelProto:
    """Return the mean probability of several heads of the same classes as a model, as `head_graph` does for one.

    Its inputs are the features that the members name, in their order; codes are the largest mean's.
    """
    _check_size(members)
    nodes, classes = Nodes(), members[0].head.classes_
    parts, codes = [], ""
    for member in members:
        if not np.array_equal(member.head.classes_, classes):
            raise ValueError("the heads of an ensemble have the same classes")
        own = _answers(nodes, member)
        parts.append(tempered(nodes, own, member.temperature, member.floor))
        codes = own.codes
    proba = parts[0]
    if len(parts) > 1:
        wide = nodes.add("Sum", *[nodes.cast(part, np.float64) for part in parts])
        proba = nodes.add("Div", wide, nodes.constant(float(len(parts)), np.float64))
        codes = nodes.add("ArgMax", proba, axis=1, keepdims=0)
    inputs = {member.features: member.n_features for member in members}
    outputs = {"probabilities": nodes.cast(proba, np.float32), "codes": codes}
    return nodes.model(inputs, outputs, len(classes))


def _answers(nodes: Nodes, member: Member) -> Answers:
    """Add the nodes of a head. Raises UsageError for one that cannot be exported."""
    head = member.head
    for kind, write in KINDS:
        if isinstance(head, kind):
            return write(nodes, head, member.features)
    if hasattr(head, "estimator_"):
        from featurecache.export.heads.sklearn import sklearn_answers

        return sklearn_answers(nodes, head, member.features, member.n_features)
    raise UsageError(f"{type(head).__name__} is no head that can be exported: choose another with --head.")


def _check_size(members: Sequence[Member]) -> None:
    """Raise UsageError where the heads are larger than an ONNX file may be."""
    arrays = [value for member in members for value in vars(member.head).values() if isinstance(value, np.ndarray)]
    n_bytes = sum(array.size * max(array.itemsize, 4) for array in arrays)
    if n_bytes > MAX_BYTES:
        raise UsageError(
            f"The head keeps {n_bytes / 1e9:.1f} GB of numbers, and an ONNX file holds at most 2.1 GB: choose another "
            "with --head."
        )
