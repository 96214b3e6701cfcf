"""One setting of a grid, tried: fitted on train, looked at on val."""

from dataclasses import dataclass, field
from typing import Any

from classify.arrays import AnyArray, FloatArray
from classify.calibration import fit_temperature, two_columns
from classify.contract import codes_among


@dataclass(frozen=True)
class Trial:
    """What one setting did on the M rows of val."""

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


def try_head(head: Any, X_val: FloatArray, y_val: AnyArray, **decided: float) -> Trial:
    """Look at a fitted head on X_val (M, D), y_val (M,); one whose scores have a temperature gets the best for val."""
    if "temperature" in head.get_params(deep=False) and hasattr(head, "decision_function"):
        codes, known = codes_among(head.classes_, y_val)
        scores = two_columns(head.decision_function(X_val[known]))
        decided["temperature"] = fit_temperature(scores, codes[known])
        head.set_params(temperature=decided["temperature"])
    proba, predicted = head.predict_proba(X_val), head.predict(X_val)
    return Trial(head.classes_, proba, predicted, decided, head.converged_, getattr(head, "note_", ""))
