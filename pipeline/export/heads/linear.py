"""Linear, quadratic and two-layer heads as nodes: see `classify.heads.fitted.kinds`."""

from __future__ import annotations

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray
from featurecache.classify.heads.fitted.kinds import FittedLinear, FittedNetwork, FittedQuadratic
from featurecache.export.heads.softmax import Answers, answers_by_scores, softmax
from featurecache.export.nodes import Nodes


def linear_answers(nodes: Nodes, head: FittedLinear, features: str) -> Answers:
    """Add the scores coef x + intercept, in float32 as for features of float32."""
    return answers_by_scores(nodes, _layer(nodes, features, head.coef_, head.intercept_), head.temperature)


def quadratic_answers(nodes: Nodes, head: FittedQuadratic, features: str) -> Answers:
    """Add the scores squares z^2 + coef z + intercept, z = x - mean, in float64."""
    z = nodes.add("Sub", nodes.cast(features, np.float64), nodes.constant(head.mean_, np.float64))
    by_value = nodes.add("MatMul", z, nodes.constant(head.coef_.T, np.float64))
    by_square = nodes.add("MatMul", nodes.add("Mul", z, z), nodes.constant(head.squares_.T, np.float64))
    first = nodes.add("Add", by_value, nodes.constant(head.intercept_, np.float64))
    return answers_by_scores(nodes, nodes.add("Add", first, by_square), head.temperature)


def network_answers(nodes: Nodes, head: FittedNetwork, features: str) -> Answers:
    """Add the scores of a hidden layer with a relu; the probabilities are tempered, not the scores."""
    hidden = nodes.add("Relu", _layer(nodes, features, head.hidden_coef_, head.hidden_intercept_))
    scores = _layer(nodes, hidden, head.coef_, head.intercept_)
    proba = nodes.cast(softmax(nodes, scores, head.temperature), np.float32)
    return Answers(proba, nodes.add("ArgMax", proba, axis=1, keepdims=0))


def _layer(nodes: Nodes, x: str, coef: AnyArray, intercept: AnyArray) -> str:
    """Add x (B, D) coef^T (D, S) + intercept (S,), float32."""
    return nodes.add("Gemm", x, nodes.constant(coef, np.float32), nodes.constant(intercept, np.float32), transB=1)
