"""The RBF kernel as nodes, and the coupling of pairs: see `classify.heads.fitted.kinds` and `pairwise_coupling`."""

from __future__ import annotations

import numpy as np

from featurecache.classify.heads.fitted.kinds import FittedKernel
from featurecache.classify.solvers.pairwise_coupling import FLOOR, JITTER, SLOPE
from featurecache.export.heads.softmax import Answers, answers_by_scores
from featurecache.export.nodes import Nodes

# Beyond this -SLOPE d makes no difference: exp(-50) is far below the floor.
FAR = 50.0


def kernel_answers(nodes: Nodes, head: FittedKernel, features: str) -> Answers:
    """Add the decisions coef^T exp(-gamma |x - origin - v|^2) + intercept, coupled where they are of pairs.

    They are computed in float64, as by the head, of numbers that are kept as the head has them.
    """
    x = nodes.add("Sub", nodes.cast(features, np.float64), nodes.constant(head.origin_, np.float64))
    vectors = nodes.cast(nodes.constant(head.support_vectors_.T, head.support_vectors_.dtype), np.float64)
    own = nodes.add("ReduceSum", nodes.add("Mul", x, x), nodes.axes(1), keepdims=1)
    others = nodes.constant((head.support_vectors_.astype(np.float64) ** 2).sum(axis=1), np.float64)
    near = nodes.add("Mul", nodes.add("MatMul", x, vectors), nodes.constant(-2.0, np.float64))
    distances = nodes.add("Add", nodes.add("Add", near, own), others)
    distances = nodes.add("Max", distances, nodes.constant(0.0, np.float64))
    kernel = nodes.add("Exp", nodes.add("Mul", distances, nodes.constant(-head.gamma_, np.float64)))
    coef = nodes.cast(nodes.constant(head.coef_, head.coef_.dtype), np.float64)
    wide = nodes.add("Add", nodes.add("MatMul", kernel, coef), nodes.constant(head.intercept_, np.float64))
    decisions = nodes.cast(wide, np.float32)
    scores = coupled(nodes, decisions, len(head.classes_)) if head.method_ == "exact" else decisions
    return answers_by_scores(nodes, scores, head.temperature)


def coupled(nodes: Nodes, decisions: str, n_classes: int) -> str:
    """Add the scores (B, C) of decisions (B, P) between pairs of classes, both float32."""
    if n_classes == 2:
        return nodes.add("Mul", decisions, nodes.constant([[-SLOPE / 2.0, SLOPE / 2.0]], np.float32))
    chances = _chances(nodes, decisions, n_classes)
    proba = _couple_chances(nodes, chances, n_classes)
    scores = nodes.add("Log", nodes.add("Max", proba, nodes.constant(FLOOR, np.float64)))
    return nodes.cast(scores, np.float32)


def _chances(nodes: Nodes, decisions: str, n_classes: int) -> str:
    """Add the chance of each class against each other, float64 (B, C, C), 0 on the diagonal."""
    scaled = nodes.add("Mul", nodes.cast(decisions, np.float64), nodes.constant(-SLOPE, np.float64))
    bounds = [nodes.constant(bound, np.float64) for bound in (-FAR, FAR)]
    one = nodes.constant(1.0, np.float64)
    won = nodes.add("Div", one, nodes.add("Add", one, nodes.add("Exp", nodes.add("Clip", scaled, *bounds))))
    lost = nodes.add("Sub", one, won)
    never = nodes.add("Sub", won, won)
    n_pairs = n_classes * (n_classes - 1) // 2
    places = np.full((n_classes, n_classes), 2 * n_pairs)
    first, second = np.triu_indices(n_classes, k=1)
    places[first, second], places[second, first] = np.arange(n_pairs), n_pairs + np.arange(n_pairs)
    every = nodes.add("Concat", won, lost, never, axis=1)
    return nodes.add("Gather", every, nodes.constant(places, np.int64), axis=1)


def _couple_chances(nodes: Nodes, chances: str, n_classes: int) -> str:
    """Add the minimiser p, float64 (B, C): Q p = b 1 with the sum 1, Q_ii = sum_j r_ji^2, Q_ij = -r_ji r_ij.

    Q with its jitter is positive definite, so Q x = 1 is solved by Gauss and Jordan's elimination without exchanges,
    and p = x / sum_i x_i.
    """
    turned = nodes.add("Transpose", chances, perm=[0, 2, 1])
    squares = nodes.add("ReduceSum", nodes.add("Mul", turned, turned), nodes.axes(2), keepdims=1)
    squares = nodes.add("Add", squares, nodes.constant(JITTER, np.float64))
    diagonal = nodes.add("Mul", squares, nodes.constant(np.eye(n_classes), np.float64))
    ones = nodes.add("Add", nodes.add("Sub", squares, squares), nodes.constant(1.0, np.float64))
    system = nodes.add("Sub", diagonal, nodes.add("Mul", turned, chances))
    system = nodes.add("Concat", system, ones, axis=2)
    for k in range(n_classes):
        place = nodes.axes(k)
        row = nodes.add("Gather", system, place, axis=1)
        row = nodes.add("Div", row, nodes.add("Gather", row, place, axis=2))
        unit = nodes.constant(np.eye(n_classes)[:, k : k + 1], np.float64)
        column = nodes.add("Sub", nodes.add("Gather", system, place, axis=2), unit)
        system = nodes.add("Sub", system, nodes.add("Mul", column, row))
    solution = nodes.add("Squeeze", nodes.add("Gather", system, nodes.axes(n_classes), axis=2), nodes.axes(2))
    return nodes.add("Div", solution, nodes.add("ReduceSum", solution, nodes.axes(1), keepdims=1))
