"""Export of a head and its network as one program of torch.export, compared with `predict` before it is written."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import PipelineError
from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.export.differences import fitted
from featurecache.export.metadata import describe
from featurecache.export.parity import decoded
from featurecache.export.references import references_of
from featurecache.export.request import ExportRequest
from featurecache.export.timm_folder.agreement import TOLERANCE, is_same_label
from featurecache.export.timm_folder.export import single_features
from featurecache.predictor import Predictor
from featurecache.runs.folder import writing_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from featurecache.export.parity import Reference
    from featurecache.extract.cache.spec import FeatureSpec

# Of images in a batch that the program takes, and of those that are compared together.
MOST_TOGETHER, TOGETHER = 1024, 16
DESCRIBED = "featurecache.json"


@dataclass(frozen=True)
class ExportedProgram:
    """A program of torch: n images compared, same labels, and the largest difference of a probability."""

    path: Path
    n_bytes: int
    head: str
    n: int
    same: int
    largest: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"format": "torch", **asdict(self), "path": str(self.path)}

    def text(self) -> str:
        """Return what was written and how far it agrees with `predict`, as lines."""
        return (
            f"{printable(self.path)}: {printable(self.head)}, a program of torch.export, {self.n_bytes / 1e6:.1f} MB\n"
            f"  {self.same:,} of {self.n:,} images of the run have the label of predict, the probabilities differ by "
            f"up to {self.largest:.1e}"
        )


def export_torch(request: ExportRequest, out: Path) -> ExportedProgram:
    """Write a head as a program that `torch.export.load` reads: uint8 (B, 3, S, S) to probabilities (B, C).

    Raises UsageError for a head that torch cannot express, PipelineError where the program does not agree with
    `predict`, and what `ExportRequest.load` raises. Then nothing is written.
    """
    progress = request.progress
    with writing_file(out) as temporary:
        predictor = request.load()
        module = _module_of(predictor, progress)
        references = references_of(predictor, request.needed_images(), progress)
        content = _program(module, predictor)
        same, largest = _agreement(content, predictor.spec, references, progress)
        if same < len(references) or largest > TOLERANCE:
            raise PipelineError(
                f"The program does not agree with predict, so it is not written: {same:,} of {len(references):,} "
                f"labels are the same, and the probabilities differ by up to {largest:.2g}."
            )
        temporary.write_bytes(content)
    return ExportedProgram(out, len(content), predictor.name, len(references), same, largest)


def _module_of(predictor: Predictor, progress: Progress) -> nn.Module:
    """Return the network and the head of a predictor as one module."""
    from torch import nn

    from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY
    from featurecache.export.torch_heads import TorchHead

    kind, meta = single_features(predictor), predictor._meta
    floor = SMALLEST_PROBABILITY if meta.tempering_floor is None else meta.tempering_floor
    head = TorchHead(predictor._loaded.head, temperature=meta.tempering, floor=floor)
    return nn.Sequential(kind.backbone(progress.say).module, head).eval().requires_grad_(False)


def _program(module: nn.Module, predictor: Predictor) -> bytes:
    """Return a serialized program. Raises PipelineError where torch cannot export the module."""
    import torch

    side = predictor.spec.transform.crop
    pixels = torch.zeros((2, 3, side, side), dtype=torch.uint8)
    document = describe(
        head=predictor.name, classes=predictor.classes, specs=[predictor.spec], shape=["B", 3, side, side]
    )
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = torch.export.Dim("batch", min=1, max=MOST_TOGETHER)
            program = torch.export.export(module, (pixels,), dynamic_shapes=({0: batch},))
            torch.export.save(program, buffer, extra_files={DESCRIBED: json.dumps(document)})
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise PipelineError(
            f"torch.export cannot export the network: {reason}. Export it as one ONNX file, by --format onnx."
        ) from error
    return buffer.getvalue()


def _agreement(
    content: bytes, spec: FeatureSpec, references: Sequence[Reference], progress: Progress
) -> tuple[int, float]:
    """Return how many labels of a program are those of `predict`, and the largest difference of a probability."""
    import torch

    module: Any = torch.export.load(io.BytesIO(content)).module()
    same, largest = 0, 0.0
    for start in range(0, len(references), TOGETHER):
        some = references[start : start + TOGETHER]
        pixels = np.stack([fitted(decoded(each.path, spec), spec.transform) for each in some])
        with torch.inference_mode():
            found = module(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()).numpy()
        for reference, proba in zip(some, found, strict=True):
            same += is_same_label(proba, reference)
            largest = max(largest, float(np.abs(proba - reference.proba).max()))
        progress.counting("comparing with predict", "images", start + len(some), len(references))
    return same, largest
