"""From scores or probabilities to tempered probabilities, as `classify.evaluation.calibration.temper_head` has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY
from featurecache.export.nodes import Nodes


@dataclass(frozen=True)
class Answers:
    """Names of what a head says of B rows before it is tempered.

    proba: (B, C), float32 or float64. codes: int64 (B,), the column of the label that `predict` gives. scores: (B, C),
    of those heads whose scores are tempered, with their own temperature.
    """

    proba: str
    codes: str
    scores: str | None = None
    temperature: float = 1.0


def answers_by_scores(nodes: Nodes, scores: str, temperature: float) -> Answers:
    """Add the label with the largest score (B, C), and softmax(scores / temperature)."""
    codes = nodes.add("ArgMax", scores, axis=1, keepdims=0)
    return Answers(softmax(nodes, scores, temperature), codes, scores, temperature)


def softmax(nodes: Nodes, scores: str, temperature: float) -> str:
    """Add the probabilities exp(s_c / T) / sum_c' exp(s_c' / T), float64 (B, C), of scores (B, C).

    In float64 the smallest probabilities are not rounded to another number than numpy rounds them to.
    """
    shifted = nodes.add("Sub", scores, nodes.add("ReduceMax", scores, nodes.axes(1), keepdims=1))
    scaled = nodes.add("Div", nodes.cast(shifted, np.float64), nodes.constant(temperature, np.float64))
    raised = nodes.add("Exp", scaled)
    return nodes.add("Div", raised, nodes.add("ReduceSum", raised, nodes.axes(1), keepdims=1))


def tempered(nodes: Nodes, answers: Answers, temperature: float, floor: float) -> str:
    """Add the probabilities (B, C) that `temper_head` gives for what a head says."""
    if temperature == 1.0:
        return answers.proba
    if floor > 0.0 or answers.scores is None:
        return softmax(nodes, _log_proba(nodes, answers.proba, floor), temperature)
    return softmax(nodes, answers.scores, temperature * answers.temperature)


def _log_proba(nodes: Nodes, proba: str, floor: float) -> str:
    """Add the logarithms of probabilities (B, C), see `classify.evaluation.calibration.log_proba`."""
    wide = nodes.cast(proba, np.float64)
    if floor > 0.0:
        return nodes.add("Log", nodes.add("Max", wide, nodes.constant(floor, np.float64)))
    smallest = nodes.constant(SMALLEST_PROBABILITY, np.float64)
    positive = nodes.add("Where", nodes.add("Greater", wide, nodes.constant(0.0, np.float64)), wide, smallest)
    least = nodes.add("ReduceMin", positive, nodes.axes(1), keepdims=1)
    return nodes.add("Log", nodes.add("Max", wide, nodes.add("Min", least, smallest)))
