"""Export of a head of a run in one of three formats, each compared with `predict` before it is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.errors import UsageError
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import printable
from featurecache.export.formats import FORMATS, ONNX, TIMM, TORCH
from featurecache.export.request import ExportRequest

if TYPE_CHECKING:
    from featurecache.export.onnx_file import ExportedModel
    from featurecache.export.timm_folder.export import ExportedFolder
    from featurecache.export.torch_program import ExportedProgram


def export_model(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = ONNX,  # noqa: A002 (the word of --format)
    head: str | None = None,
    fixed: bool = False,
    images: str | None = None,
    weights: str | None = None,
    cache_root: Path | None = None,
    trust_head: bool = False,
    progress: Progress | None = None,
) -> ExportedModel | ExportedFolder | ExportedProgram:
    """Write a head of a run or a model, the best on val unless named, for other programs.

    format: onnx, one file from the pixels of an image to probabilities; timm, a folder that `timm.create_model` loads;
    torch, a program that `torch.export.load` reads. fixed: an ONNX file takes images of the size of the network, and
    does not resize. images: where those of the run are now. The other arguments are those of `Predictor.load`.

    Raises UsageError for a head that has no such format, PipelineError where what is exported does not agree with
    `predict`, and what `Predictor.load` raises. Then nothing is written, and what was there stays.
    """
    request = ExportRequest(run, head, images, weights, cache_root, trust_head, progress or Silent())
    if fixed and format != ONNX:
        raise UsageError("--fixed is for --format onnx: the other formats take images of the size of the network.")
    if format == TIMM:
        from featurecache.export.timm_folder.export import export_timm

        return export_timm(request, Path(out))
    if format == TORCH:
        from featurecache.export.torch_program import export_torch

        return export_torch(request, Path(out))
    if format != ONNX:
        raise UsageError(f"There is no format '{printable(format)}'. Formats are {', '.join(FORMATS)}.")
    from featurecache.export.onnx_file import export_onnx

    return export_onnx(request, Path(out), is_fixed=fixed)
