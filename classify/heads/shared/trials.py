"""Trials: one setting of a grid in one round, fitted on the rows that the round trains on, judged on the others.

Every head has a class method, which a sweep calls once for all its settings and rounds:

    try_grid(heads, X, y, rounds, sample_weight=None) -> Iterator[tuple[int, int, Trial]]

heads: unfitted heads of one class, one a setting. X (N, D): all rows of train and val together, anything that gives
blocks of rows (an array, a memory map, a torch tensor). y (N,): labels. rounds: bool masks (N,), the rows that each
holds out. It yields (setting, round, Trial) in whatever order they are finished, each pair once. A Trial holds sums
over the held-out rows and no probabilities: those of all settings, rounds and classes would not fit in memory. A head
that cannot share anything between settings uses `try_each`. One whose class says `stops_early` looks at the held-out
rows for more than the setting, and takes the metric to choose by as a keyword: `metric`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import plain
from featurecache.classify.arrays.softmax import softmax_blocks, two_columns
from featurecache.classify.evaluation.calibration import NO_FIT, TemperatureFit, find_temperature, log_proba
from featurecache.classify.evaluation.metric_sums import MetricSums
from featurecache.classify.heads.shared.parameters import parameter_names
from featurecache.classify.heads.shared.validation import codes_among

AT_BOUND = (
    "The temperature {:.3g} is at the end of the range that is searched, as for scores that do not predict the classes "
    "of val: probabilities may be poorly calibrated."
)


@dataclass(frozen=True)
class Trial:
    """The result of one setting on the M rows that a round holds out."""

    classes: AnyArray
    """The labels (C,) of the classes that `sums` counts."""
    sums: MetricSums
    decided: dict[str, float] = field(default_factory=dict)
    """Values that val decided besides the setting, for the refit: a temperature, a number of epochs."""
    converged: bool = True
    note: str = ""
    """A sentence for the table of heads where training had a problem."""
    tempering: TemperatureFit = NO_FIT
    """The temperature for the probabilities; 1 where `decided` already has the best."""
    hint: str = ""
    """A sentence for the table of heads if this setting is chosen."""


def judge_scores(
    head: Any,
    scores: FloatArray,
    labels: AnyArray,
    classes: AnyArray | None = None,
    *,
    trained: BoolArray | None = None,
    predicted: AnyArray | None = None,
    proba: FloatArray | None = None,
    guess: float | None = None,
) -> Trial:
    """Return the trial of a fitted head with scores (M, C) for rows with labels (M,).

    A head with a temperature gets the best one for the rows whose class it knows: one of `classes` (C,), those of the
    head unless given, and of those that were trained, bool (C,), where there are columns for others, too.
    predicted (M,): labels, where they are not those with the largest scores. proba (M, C): probabilities of the head's
    own, of which the scores are the logarithms: it has no temperature then. guess: a temperature near the best.
    """
    classes = head.classes_ if classes is None else classes
    codes, known = codes_among(classes, labels)
    fit = find_temperature(*_among(scores, codes, known if trained is None else known & trained[codes]), guess=guess)
    own = proba is None and "temperature" in parameter_names(head.__class__)
    best = scores.argmax(axis=1) if predicted is None else codes_among(classes, predicted)[0]
    parts: Iterable[tuple[slice, FloatArray]] = softmax_blocks(scores, fit.temperature if own else 1.0)
    parts = parts if proba is None else [(slice(None), proba.astype(np.float64))]
    sums = MetricSums.of(parts, np.where(known, codes, -1), best, len(classes))
    if own:
        hint = AT_BOUND.format(fit.temperature) if fit.at_bound else ""
        return Trial(classes, sums, {"temperature": fit.temperature}, *_convergence(head), hint=hint)
    return Trial(classes, sums, {}, *_convergence(head), fit)


def _convergence(head: Any) -> tuple[bool, str]:
    """Return whether the head converged, and its note; a head without such a flag did."""
    return getattr(head, "converged_", True), getattr(head, "note_", "")


def _among(scores: FloatArray, codes: IntArray, rows: BoolArray) -> tuple[FloatArray, IntArray]:
    """Return the scores and codes of some rows, bool (M,): as they are where these are all."""
    return (scores, codes) if rows.all() else (scores[rows], codes[rows])


def try_head(head: Any, X_val: FloatArray, y_val: AnyArray) -> Trial:
    """Judge a fitted head on X_val (M, D), y_val (M,) by its scores where it has some, else by its probabilities."""
    predicted = head.predict(X_val)
    if "temperature" in parameter_names(head.__class__) and hasattr(head, "decision_function"):
        return judge_scores(head, two_columns(head.decision_function(X_val)), y_val, predicted=predicted)
    proba = head.predict_proba(X_val)
    return judge_scores(head, log_proba(proba), y_val, predicted=predicted, proba=proba)


def try_each(
    heads: Sequence[Any], X: FloatArray, y: AnyArray, rounds: Sequence[BoolArray], sample_weight: FloatArray | None
) -> Iterator[tuple[int, int, Trial]]:
    """Fit every head for every round, one after the other: the `try_grid` of heads that share nothing."""
    y = plain(y)
    for number, held_out in enumerate(rounds):
        X_train, y_train, weight = training_rows(X, y, held_out, sample_weight)
        weighted = {} if weight is None else {"sample_weight": weight}
        for setting, head in enumerate(heads):
            yield setting, number, try_head(head.fit(X_train, y_train, **weighted), X[held_out], y[held_out])


def training_rows(
    X: FloatArray, y: AnyArray, held_out: BoolArray, sample_weight: FloatArray | None
) -> tuple[FloatArray, AnyArray, FloatArray | None]:
    """Return the X, labels and weights of the rows that a round trains on: views where they are the first rows."""
    n_train = len(held_out) - int(held_out.sum())
    rows = ~held_out if held_out[:n_train].any() else slice(n_train)
    return X[rows], plain(y)[rows], None if sample_weight is None else plain(sample_weight)[rows]
