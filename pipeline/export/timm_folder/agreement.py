"""Labels by a folder of timm, compared with those of `predict`: on our pixels, and by timm's own transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from featurecache.base.errors import PipelineError
from featurecache.export.differences import fitted
from featurecache.export.parity import decoded, read_plainly
from featurecache.extract.backbones.libraries.timm_networks import timm_library

if TYPE_CHECKING:
    from pathlib import Path

    from featurecache.export.parity import Reference
    from featurecache.extract.cache.spec import FeatureSpec
    from featurecache.extract.cache.transform_spec import TransformSpec

BATCH = 16
# Of the labels through timm's own transform, which resizes by Pillow.
LEAST_BY_TIMM = 0.99
# Probabilities closer than this are equal but for rounding, so that either label may be the larger.
ROUNDING = 1e-4
TOLERANCE = 1e-3


@dataclass(frozen=True)
class TimmAgreement:
    """How far a folder agrees with `predict` on n images.

    same, largest: labels that are the same on our pixels, and the largest difference of a probability. same_by_timm,
    largest_by_timm: the same with images that Pillow reads and timm's transform prepares.
    """

    n: int
    same: int
    largest: float
    same_by_timm: int
    largest_by_timm: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def check(self) -> None:
        """Raise PipelineError where the folder does not agree."""
        if self.same < self.n or self.largest > TOLERANCE:
            raise PipelineError(
                f"The folder does not agree with predict, so it is not written: {self.same:,} of {self.n:,} labels are "
                f"the same on the same pixels, and the probabilities differ by up to {self.largest:.2g}."
            )
        if self.n - self.same_by_timm > max(1.0, (1.0 - LEAST_BY_TIMM) * self.n):
            raise PipelineError(
                f"timm's own transform does not agree with the run's, so the folder is not written: "
                f"{self.same_by_timm:,} of {self.n:,} labels are the same. Export it as one ONNX file, by --format "
                "onnx, which has the transform of the run in it."
            )


def normalised(pixels: Tensor, transform: TransformSpec) -> Tensor:
    """Return pixels, uint8 (B, 3, S, S), as timm's networks take them: float32, less the mean, by the deviation."""
    mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (transform.mean, transform.std))
    return (pixels.float() / 255.0 - mean) / std


def compare_with_predict(
    module: Any, spec: FeatureSpec, references: Sequence[Reference], report: Callable[[int, int], None]
) -> TimmAgreement:
    """Return how far a network that timm loaded agrees with `predict`. report: called with the images that are done."""
    timm = timm_library("The exported folder")
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=module), is_training=False)
    total = [0, 0]
    largest = [0.0, 0.0]
    for start in range(0, len(references), BATCH):
        some = references[start : start + BATCH]
        for place, batch in enumerate((_ours(some, spec), _theirs(some, transform))):
            for reference, proba in zip(some, _probabilities(module, batch), strict=True):
                total[place] += is_same_label(proba, reference)
                largest[place] = max(largest[place], float(np.abs(proba - reference.proba).max()))
        report(start + len(some), len(references))
    return TimmAgreement(len(references), total[0], largest[0], total[1], largest[1])


def is_same_label(proba: np.ndarray[Any, Any], reference: Reference) -> bool:
    """Return whether the label of `predict` is the most probable one (C,), or equally probable but for rounding."""
    return bool(proba[reference.code] >= proba.max() - ROUNDING)


def _ours(references: Sequence[Reference], spec: FeatureSpec) -> Tensor:
    pixels = np.stack([fitted(decoded(each.path, spec), spec.transform) for each in references])
    return normalised(torch.from_numpy(pixels).permute(0, 3, 1, 2), spec.transform)


def _theirs(references: Sequence[Reference], transform: Callable[[Any], Tensor]) -> Tensor:
    return torch.stack([transform(_image(each.path)) for each in references])


def _image(path: Path) -> Any:
    from PIL import Image

    return Image.fromarray(read_plainly(path))


def _probabilities(module: Any, batch: Tensor) -> Iterator[np.ndarray[Any, Any]]:
    with torch.inference_mode():
        return iter(module(batch).softmax(dim=1).numpy())
