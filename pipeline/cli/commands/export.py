"""`featurecache export`: a head of a run and its network for other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurecache.base.errors import UsageError
from featurecache.base.exits import DONE
from featurecache.base.text import count, printable
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, argument, option, takes
from featurecache.cli.head_options import HeadOptions
from featurecache.cli.options import PATH, RunCacheOption
from featurecache.cli.printing import Printing
from featurecache.extract.backbones.libraries.own_network import permit

if TYPE_CHECKING:
    from featurecache.export.export import Exported
    from featurecache.export.timm_folder.export import ExportedFolder
    from featurecache.export.torch_program import ExportedProgram

ONNX, TIMM, TORCH = FORMATS = ("onnx", "timm", "torch")
SUFFIXES = {ONNX: ".onnx", TORCH: ".pt2"}


@dataclass(frozen=True)
class ExportOptions:
    """Which head, and where the file goes."""

    run: Path = argument("RUN", "a run folder, such as data/runs/latest, or the name of a model", type=PATH)
    out: Path = option(
        "--out", metavar="FILE", type=PATH, required=True,
        help="the .onnx file to write, which replaces one of that name; what it says of itself is in FILE.json. A .pt2 "
        "file with --format torch, a folder with --format timm",
    )  # fmt: skip
    format: str = option(
        "--format", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True,
        help="onnx: one file from pixels to probabilities. timm: a folder with a model card, whose last layer is a "
        "linear head; timm, transformers and the Hugging Face hub load it. torch: a program of torch.export",
    )  # fmt: skip
    fixed: bool = option(
        "--fixed", is_flag=True, default=False,
        help="the file takes images of the size of the network, resized and cropped by whoever calls it",
    )  # fmt: skip
    images: str | None = option(
        "--images", metavar="IMAGES",
        help="where the images of the run are now, on which the file is compared (default: where the run saw them)",
    )  # fmt: skip


@click.command(
    cls=Command,
    takes_file=True,
    stopped="Stopped: no file was written.",
    examples=[
        "featurecache export data/runs/latest --out model.onnx",
        "featurecache export data/runs/latest --head logistic --fixed --out model.onnx",
        "featurecache export data/runs/latest --head logistic --format timm --out my-model",
    ],
)
@takes(ExportOptions, HeadOptions, RunCacheOption, Printing)
def command(asked: ExportOptions, head: HeadOptions, cache: RunCacheOption, printing: Printing) -> int:
    """Export a head and its network for other programs.

    An ONNX file takes the pixels of an image of any size, uint8 (H, W, 3), and returns the probability of every class;
    it runs under ONNX Runtime alone, without featurecache and torch. Before anything is written it is compared with
    `predict` on images of the run, an ONNX file also on images of unusual kinds; what disagrees is not written.
    """
    suffix = SUFFIXES.get(asked.format, "")
    if suffix and asked.out.suffix.lower() != suffix:
        raise UsageError(f"'{printable(asked.out)}' is no {suffix} file: name one by --out.")
    if asked.fixed and asked.format != ONNX:
        raise UsageError("--fixed is for --format onnx: the other formats take images of the size of the network.")
    permit(head.backbone)
    with Console(quiet=printing.quiet) as console:
        exported = _exporter(asked)(
            asked.run,
            asked.out,
            head=head.head,
            images=asked.images,
            weights=head.weights,
            cache_root=cache.cache,
            trust_head=head.trust_head,
            progress=console,
        )
    print(json.dumps(exported.to_dict(), indent=2) if printing.json else exported_text(exported))
    return DONE


def _exporter(asked: ExportOptions) -> Callable[..., Exported | ExportedFolder | ExportedProgram]:
    """Return the function that writes the format which is asked for."""
    if asked.format == TIMM:
        from featurecache.export.timm_folder.export import export_timm

        return export_timm
    if asked.format == TORCH:
        from featurecache.export.torch_program import export_torch

        return export_torch
    from featurecache.export.export import export_model

    return partial(export_model, fixed=asked.fixed)


def exported_text(exported: Exported | ExportedFolder | ExportedProgram) -> str:
    """Return what was written and how far it agrees with `predict`, as lines."""
    from featurecache.export.export import Exported

    return onnx_text(exported) if isinstance(exported, Exported) else exported.text()


def onnx_text(exported: Exported) -> str:
    """Return the same of an ONNX file."""
    document = exported.document
    parity = document["parity"]
    shape = ", ".join(map(str, document["input"]["shape"]))
    classes = count(len(document["classes"]), "class", "classes")
    lines = [
        f"{printable(exported.path)}: {printable(document['head'])}, {classes}, "
        f"{exported.n_bytes / 1e6:.1f} MB, {parity['ms_per_image']:.1f} ms an image here",
        f"  takes uint8 ({shape})",
    ]
    for name, what in (("run", "images of the run"), ("odd", "images of unusual kinds")):
        if name in parity:
            found = parity[name]
            lines.append(
                f"  {found['n_same']:,} of {found['n']:,} {what} have the label of predict, the probabilities differ "
                f"by up to {found['largest']:.1e}"
            )
    if differ := parity["pillow"]["differ"]:
        lines.append(f"  of these kinds Pillow alone reads other pixels than featurecache: {', '.join(differ)}")
    return "\n".join(lines)
