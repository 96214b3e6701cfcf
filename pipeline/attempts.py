"""What became of the heads of one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.join import Features

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from classify.sweep import SweepResult


@dataclass(frozen=True)
class Tried:
    """One head on one backbone, chosen, refitted and tested."""

    features: Features
    name: str
    result: SweepResult
    predicted: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    """(N, C), tempered where that was asked for; of a kept head, in a file."""
    tempering: dict[str, float] | None
    """What tempering did to them on test: see `classify.calibration.tempering_effect`."""
    predict_seconds: float
    stopped: bool = False
    """Whether the user stopped its sweep, and this is the best of a part of its settings."""
    saved: Path | None = None
    """The folder where the head is, once it is kept on disk: `result.head` is then None."""

    @property
    def folder_name(self) -> str:
        """Where the head is saved below heads/, and its name in comparisons."""
        return f"{self.features.name}--{self.name}"


@dataclass
class Attempts:
    """Heads that were tried, and those that could not be."""

    tried: list[Tried] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    """features, head and what was said about it, for each that could not be trained."""
    interrupted: bool = False
