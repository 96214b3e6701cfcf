"""Seconds of an epoch of fine-tuning from cached maps, against running the whole network.

    cache    the frozen part has run once, and what it gave is read from the feature cache
    whole    the usual way: every image is decoded and runs through the whole network, gradients above the split only

Both train the same weights from the same random last layer with the same batches, so the accuracies at the end must
agree; the whole network has the memory format and the allocator that make it fast on a CPU, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurecache.base.defaults import DEFAULT_BACKBONE
from featurecache.base.exits import DONE
from featurecache.base.text import table
from featurecache.bench.output import BenchCommand, Output
from featurecache.cli.declare import POSITIVE, option, takes
from featurecache.cli.options import PATH

if TYPE_CHECKING:
    from featurecache.evaluate.join import Labelled
    from featurecache.extract.images.manifest import Manifest
    from featurecache.finetune.plan import FinetunePlan
    from featurecache.finetune.training import Training

DATASET = "mnist5k"


@dataclass(frozen=True)
class Line:
    """One way: seconds before the first epoch, seconds of an epoch with its look at val, accuracies at the end."""

    way: str
    first_seconds: float
    epoch_seconds: float
    val_accuracy: float


def measure(
    images: Path,
    cache_root: Path,
    *,
    backbone: str = "efficientnet_lite0",
    unfreeze: str = "1",
    size: int | None = None,
    epochs: int = 2,
    engine: str = "auto",
) -> list[Line]:
    """Both ways on the same images, the cache first. Raises PipelineError or ExtractError."""
    from featurecache.evaluate.join import label_samples
    from featurecache.extract.cache.memo import Memo
    from featurecache.extract.engines.torch_engine import reuse_freed_memory
    from featurecache.extract.images.read import read_images
    from featurecache.extract.job.request import FeatureRequest
    from featurecache.finetune.plan import FinetunePlan
    from featurecache.finetune.recipe import Recipe

    reuse_freed_memory()
    with Memo(cache_root) as memo:
        manifest = read_images(images)
        labelled = label_samples(manifest, memo, seed=0)
    recipe = Recipe(epochs=epochs, patience=epochs)
    plan = FinetunePlan(images, cache_root, images, recipe, unfreeze=unfreeze, augment="none", engine=engine)
    request = FeatureRequest(backbone, size=size)
    return [_way(way, manifest, labelled, plan, request) for way in ("cache", "whole")]


def _way(way: str, manifest: Manifest, labelled: Labelled, plan: FinetunePlan, request: Any) -> Line:
    started = time.perf_counter()
    training = _training(manifest, labelled, plan, request, is_whole=way == "whole")
    first = time.perf_counter() - started
    started = time.perf_counter()
    training.run(lambda *_: None, lambda _: None)
    seconds = (time.perf_counter() - started) / len(training.epochs)
    return Line(way, round(first, 1), round(seconds, 1), training.epochs[-1].val_accuracy)


def _training(manifest: Manifest, labelled: Labelled, plan: FinetunePlan, request: Any, *, is_whole: bool) -> Training:
    from featurecache.cli.console import Console
    from featurecache.extract.backbones.cuts import CutRequest
    from featurecache.extract.backbones.cutting import cut_network
    from featurecache.extract.backbones.freezing import split_network
    from featurecache.extract.backbones.registry import load_network
    from featurecache.features.feature_arrays import FeatureArrays, default_budget
    from featurecache.finetune.assembly import build_training
    from featurecache.finetune.head_layers import as_module, random_layers
    from featurecache.finetune.map_store import open_maps

    network, found, *_ = load_network(request.backbone, size=request.size)
    split = split_network(request.backbone, network, found.transform, CutRequest(), unfreeze=plan.unfreeze)
    layers = as_module(random_layers(split.feature_dim, len(labelled.classes), seed=0))
    lower, source = None, split
    if is_whole and split.layer is not None:
        lower = cut_network(request.backbone, network, found.transform, [CutRequest(split.layer, "flatten")]).module
        source = replace(split, layer=None)
    arrays = FeatureArrays(default_budget(), plan.cache_root)
    with Console(quiet=True) as console:
        train, val = open_maps(manifest, labelled, plan, request, source, found.transform, arrays, console)
    return build_training(labelled, plan, split, layers, train, val, "cpu", lower=lower)


def text_of(lines: Sequence[Line]) -> str:
    """The table, and how many times faster the cache is."""
    rows = [(each.way, each.first_seconds, each.epoch_seconds, f"{100 * each.val_accuracy:.2f}") for each in lines]
    cache, whole = lines
    times = whole.epoch_seconds / cache.epoch_seconds
    headers = ("way", "before the first epoch s", "an epoch s", "val % at the end")
    return f"{table(rows, headers, right=(1, 2, 3))}\n\nan epoch from the cache is {times:.1f} times as fast"


@dataclass(frozen=True)
class FinetuneBench:
    """Which network, on which images."""

    images: Path | None = option("--images", metavar="DIR", type=PATH, help=f"labelled images (default: {DATASET})")
    backbone: str = option(
        "--backbone", metavar="NAME", default=DEFAULT_BACKBONE, show_default=True, help="the network"
    )
    unfreeze: str = option("--unfreeze", metavar="N|PART|all", default="1", show_default=True, help="what is trained")
    size: int | None = option("--size", metavar="S", type=POSITIVE, help="side of the input in pixels")
    epochs: int = option("--epochs", metavar="N", type=POSITIVE, default=2, show_default=True, help="of each way")


@click.command(cls=BenchCommand, examples=["featurecache bench finetune --unfreeze 5 --size 96"])
@takes(FinetuneBench, Output)
def command(asked: FinetuneBench, output: Output) -> int:
    """Measure an epoch from cached maps and of the whole network."""
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder:
        images = asked.images or write_images(Path(folder))
        lines = measure(
            images,
            Path(folder) / "cache",
            backbone=asked.backbone,
            unfreeze=asked.unfreeze,
            size=asked.size,
            epochs=asked.epochs,
        )
    output.show(text_of(lines), {"lines": [asdict(line) for line in lines]})
    return DONE


def write_images(folder: Path) -> Path:
    """The data set that is used unless another is named."""
    from featurecache.bench.demo_data import write_dataset

    write_dataset(DATASET, folder / DATASET)
    return folder / DATASET
