"""The recipe of a fine-tune: learning rate, batches, regularisation, schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

CLASS_WEIGHTS = ("none", "balanced")
BATCH_NORMS = ("frozen", "trained")
TRAINING_PRECISIONS = ("fp32", "bf16")
# The share of all steps that warms the learning rate up: AdamW's averages are noise before.
WARM_UP = 0.05
# The rate at the last step, as a part of the first.
FINAL_RATE = 0.01
# The running mean of the weights reaches back over this part of all steps.
AVERAGED = 0.05


@dataclass(frozen=True)
class Recipe:
    """One way of training.

    learning_rate: that of the last layers; every stage below has `decay` times the one above it.
    batch_size: images a step. parts: into how many passes a step is cut, to save memory and nothing else.
    smoothing: part of the label that is spread over all classes (Szegedy et al. 2016).
    patience: stop after so many epochs without a better result on val.
    class_weight: one of CLASS_WEIGHTS. batch_norm: whether its statistics stay "frozen" or are "trained" on.
    precision: "fp32", or "bf16" for products in half precision with weights in full.
    """

    epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int = 32
    parts: int = 1
    decay: float = 0.8
    weight_decay: float = 0.05
    smoothing: float = 0.1
    patience: int = 5
    class_weight: str = CLASS_WEIGHTS[0]
    batch_norm: str = BATCH_NORMS[0]
    precision: str = TRAINING_PRECISIONS[0]
    seed: int = 0

    def rate(self, step: int, n_steps: int) -> float:
        """The factor of the learning rates at a step: a linear warm-up, then half a cosine (SGDR, 2017)."""
        warm = max(1, round(WARM_UP * n_steps))
        if step < warm:
            return (step + 1) / warm
        way = (step - warm) / max(1, n_steps - warm)
        return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * way))

    def averaging_decay(self, step: int, n_steps: int) -> float:
        """The decay of the running mean of the weights at a step; smaller first, when the mean is mostly the start."""
        return min(1 - 1 / max(2.0, AVERAGED * n_steps), (1 + step) / (10 + step))
