"""`featurecache export`: a head of a run and its network for other programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from featurecache.base.errors import UsageError
from featurecache.base.exits import DONE
from featurecache.base.text import printable
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, argument, option, takes
from featurecache.cli.head_options import HeadOptions
from featurecache.cli.options import PATH, RunCacheOption
from featurecache.cli.printing import Printing
from featurecache.export.formats import FORMATS, SUFFIXES
from featurecache.extract.backbones.libraries.own_network import permit


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
    permit(head.backbone)
    from featurecache.export.export import export_model

    with Console(quiet=printing.quiet) as console:
        exported = export_model(
            asked.run,
            asked.out,
            format=asked.format,
            head=head.head,
            fixed=asked.fixed,
            images=asked.images,
            weights=head.weights,
            cache_root=cache.cache,
            trust_head=head.trust_head,
            progress=console,
        )
    print(json.dumps(exported.to_dict(), indent=2) if printing.json else exported.text())
    return DONE
