"""One setting of a grid in one round, tried: fitted on the rows that the round trains on, looked at on the others.

Every head has a class method, which a sweep calls once for all its settings and rounds:

    try_grid(heads, X, y, rounds, sample_weight=None) -> Iterator[tuple[int, int, Trial]]

heads: unfitted heads of one class, one a setting. X (N, D): all rows of train and val together, anything that gives
blocks of rows (an array, a memory map, a torch tensor). y (N,): labels. rounds: bool masks (N,), the rows that each
holds out. It yields (setting, round, Trial) in whatever order they are finished, each pair once; a Trial is about the
held-out rows of its round, in their order. A head that cannot share anything between settings uses `try_each`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from classify.arrays import AnyArray, BoolArray, FloatArray
from classify.calibration import fit_temperature, softmax, two_columns
from classify.contract import codes_among
from classify.plain import plain


@dataclass(frozen=True)
class Trial:
    """What one setting did on the M rows that a round holds out."""

    classes: AnyArray
    """The labels (C,) that the columns of `proba` stand for."""
    proba: FloatArray
    """Class probabilities (M, C)."""
    predicted: AnyArray
    """Labels (M,)."""
    decided: dict[str, float] = field(default_factory=dict)
    """What val decided besides the setting, for the refit to use: a temperature, a number of epochs."""
    converged: bool = True
    note: str = ""
    """A sentence for the table when something was not as it should be."""


def judge_scores(head: Any, scores: FloatArray, labels: AnyArray, trained: BoolArray | None = None) -> Trial:
    """Return the trial of a fitted head with scores (M, C) for rows with labels (M,).

    One whose scores have a temperature gets the best for those rows whose class it knows: one of `classes_`, and of
    those that were trained, bool (C,), where it has columns for others, too.
    """
    decided, temperature = {}, 1.0
    if "temperature" in head.get_params(deep=False):
        codes, known = codes_among(head.classes_, labels)
        known = known if trained is None else known & trained[codes]
        temperature = decided["temperature"] = fit_temperature(scores[known], codes[known])
    proba, best = softmax(scores / temperature), scores.argmax(axis=1)
    return Trial(head.classes_, proba, head.classes_[best], decided, head.converged_, head.note_)


def try_head(head: Any, X_val: FloatArray, y_val: AnyArray, **decided: float) -> Trial:
    """Look at a fitted head on X_val (M, D), y_val (M,); one whose scores have a temperature gets the best for val."""
    if "temperature" in head.get_params(deep=False) and hasattr(head, "decision_function"):
        codes, known = codes_among(head.classes_, y_val)
        scores = two_columns(head.decision_function(X_val))
        decided["temperature"] = fit_temperature(scores[known], codes[known])
        head.set_params(temperature=decided["temperature"])
    proba, predicted = head.predict_proba(X_val), head.predict(X_val)
    return Trial(head.classes_, proba, predicted, decided, head.converged_, getattr(head, "note_", ""))


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
