"""k nearest neighbours as nodes, with their rows.

The arithmetic is that of `classify.solvers.nearest_rows` and `classify.heads.shared.votes`; of equally near rows
TopK takes the first, as the head does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray
from featurecache.classify.arrays.as_numpy import working_dtype
from featurecache.classify.heads.fitted.voting import FittedNeighbours, blank_rows
from featurecache.classify.heads.shared.votes import Voters
from featurecache.export.heads.softmax import Answers, tempered
from featurecache.export.nodes import Nodes


def neighbour_answers(nodes: Nodes, head: FittedNeighbours, features: str) -> Answers:
    """Add the votes of the k nearest rows, their prior and the head's own temperature."""
    dtype = working_dtype(head.rows_)
    x = nodes.cast(features, dtype)
    blank = blank_rows(head.rows_, head.metric)
    voters = Voters(head.codes_, head.counts_, head.factors_, head.variance_, blank)
    similarity, rows = _nearest(nodes, head, x, blank, dtype)
    votes = _votes(nodes, head, voters, similarity, rows)
    if head.metric == "cosine":
        is_blank = nodes.add("Equal", _squares_of(nodes, x), nodes.constant(0.0, dtype))
        votes = nodes.add("Where", is_blank, nodes.constant([voters.votes_of_blank(head.k)], np.float64), votes)
    # The head adds votes up in the type of its rows.
    votes = nodes.cast(nodes.cast(votes, dtype), np.float64)
    weighed = nodes.add("Mul", votes, nodes.constant(head.factors_, np.float64))
    total = nodes.add("Add", weighed, nodes.constant(voters.prior(), np.float64))
    proba = nodes.add("Div", total, nodes.add("ReduceSum", total, nodes.axes(1), keepdims=1))
    own = Answers(nodes.cast(proba, dtype), nodes.add("ArgMax", total, axis=1, keepdims=0))
    return Answers(nodes.cast(tempered(nodes, own, head.temperature, 0.0), dtype), own.codes)


def _nearest(nodes: Nodes, head: FittedNeighbours, x: str, blank: AnyArray, dtype: np.dtype[Any]) -> tuple[str, str]:
    """Add the similarities (B, k) of the nearest rows to x (B, D), and their numbers (B, k), the nearest first."""
    rows = head.rows_.astype(dtype)
    origin = np.asarray(head.origin_, dtype)
    centred = rows - origin
    ours = nodes.add("Sub", x, nodes.constant(origin, dtype))
    near = nodes.add("MatMul", ours, nodes.constant(centred.T, dtype))
    near = nodes.add("Sub", near, _half_squares(nodes, ours, dtype))
    near = nodes.add("Sub", near, nodes.constant(_squares(centred) / 2, dtype))
    if head.metric == "cosine":
        raw, others = _half_squares(nodes, x, dtype), _squares(rows) / 2
        near = nodes.add("Add", nodes.add("Add", near, raw), nodes.constant(others, dtype))
        near = nodes.add("Mul", near, _inverse_length(nodes, raw, dtype))
        length = np.sqrt(2 * others)
        inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
        near = nodes.add("Mul", near, nodes.constant(inverse, dtype))
    if blank.any():
        near = nodes.add("Where", nodes.constant(blank, np.bool_), nodes.constant(-np.inf, dtype), near)
    k = nodes.axes(min(head.k, len(rows)))
    similarity, numbers = nodes.add_several("TopK", near, k, n_outputs=2, axis=1, largest=1, sorted=1)
    return similarity, numbers


def _votes(nodes: Nodes, head: FittedNeighbours, voters: Voters, similarity: str, rows: str) -> str:
    """Add the votes (B, C), float64, of the nearest rows."""
    own = nodes.add("Gather", nodes.constant(head.counts_, np.float64), rows, axis=0)
    wide = nodes.cast(similarity, np.float64)
    zero = nodes.constant(0.0, np.float64)
    if voters.blank.any():
        is_missing = nodes.add("IsInf", wide)
        own, wide = nodes.add("Where", is_missing, zero, own), nodes.add("Where", is_missing, zero, wide)
    if not voters.all_fit():
        before = nodes.add("CumSum", own, nodes.constant(1, np.int64), exclusive=1)
        left = nodes.add("Max", nodes.add("Sub", nodes.constant(head.k, np.float64), before), zero)
        own = nodes.add("Min", own, left)
    if head.sharpness is not None:
        unit = max(float(head.variance_), float(np.finfo(np.float64).tiny)) if head.metric == "euclidean" else 1.0
        further = nodes.add("Sub", wide, nodes.add("Gather", wide, nodes.axes(0), axis=1))
        scaled = nodes.add("Div", further, nodes.constant(head.sharpness * unit, np.float64))
        own = nodes.add("Mul", own, nodes.add("Exp", scaled))
    codes = nodes.add("Gather", nodes.constant(head.codes_, np.int64), rows, axis=0)
    shape = nodes.add("Concat", nodes.add("Shape", own, start=0, end=1), nodes.axes(len(head.classes_)), axis=0)
    none = nodes.add("Expand", zero, shape)
    return nodes.add("ScatterElements", none, codes, own, axis=1, reduction="add")


def _squares(rows: AnyArray) -> AnyArray:
    return np.asarray(np.einsum("ij,ij->i", rows, rows))


def _half_squares(nodes: Nodes, x: str, dtype: np.dtype[Any]) -> str:
    """Add |x|^2 / 2 (B, 1) of x (B, D)."""
    return nodes.add("Div", _squares_of(nodes, x), nodes.constant(2.0, dtype))


def _squares_of(nodes: Nodes, x: str) -> str:
    return nodes.add("ReduceSum", nodes.add("Mul", x, x), nodes.axes(1), keepdims=1)


def _inverse_length(nodes: Nodes, half: str, dtype: np.dtype[Any]) -> str:
    """Add 1 / |x| (B, 1) for |x|^2 / 2; 0 for a row of zeros."""
    length = nodes.add("Sqrt", nodes.add("Mul", half, nodes.constant(2.0, dtype)))
    zero, one = nodes.constant(0.0, dtype), nodes.constant(1.0, dtype)
    is_some = nodes.add("Greater", length, zero)
    return nodes.add("Where", is_some, nodes.add("Div", one, nodes.add("Where", is_some, length, one)), zero)
