"""Metrics of one epoch, and the order by which the best is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Epoch:
    """The metrics of one epoch; `val_accuracy` and `val_log_loss` are those of the running mean of the weights."""

    number: int
    train_loss: float
    val_accuracy: float
    val_log_loss: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """Smaller is better."""
        return -self.val_accuracy, self.val_log_loss


def val_metrics(scores: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy and log loss, the latter at its best temperature: smoothed labels make scores too cautious."""
    from featurecache.classify.arrays.softmax import softmax
    from featurecache.classify.evaluation.calibration import fit_temperature
    from featurecache.classify.evaluation.metrics import log_loss

    proba = softmax(scores.astype(np.float64) / fit_temperature(scores, y))
    return float((scores.argmax(axis=1) == y).mean()), log_loss(y, proba)
