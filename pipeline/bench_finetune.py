"""How long an epoch of fine-tuning takes from cached maps, beside running the whole network in every epoch.

    cache    the frozen part has run once, and what it gave is read from the feature cache
    whole    the usual way: every image is decoded and runs through the whole network, gradients above the split only

Both train the same weights from the same random last layer with the same batches, so the accuracies at the end must
agree; the whole network has the memory format and the allocator that make it fast on a CPU, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.option_types import positive
from pipeline.tables import table

if TYPE_CHECKING:
    from pipeline.finetune.plan import FinetunePlan
    from pipeline.finetune.training import Training
    from pipeline.join import Labelled

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
    from extract.engines.torch_engine import keep_freed_memory
    from extract.manifest import read_images
    from extract.memo import Memo
    from extract.request import FeatureRequest
    from pipeline.finetune.plan import FinetunePlan
    from pipeline.finetune.recipe import Recipe
    from pipeline.join import label_samples

    keep_freed_memory()
    with Memo(cache_root) as memo:
        labelled = label_samples(read_images(images), memo, seed=0)
    recipe = Recipe(epochs=epochs, patience=epochs)
    plan = FinetunePlan(
        str(images), images, cache_root, images, recipe, unfreeze=unfreeze, augment="none", engine=engine
    )
    request = FeatureRequest(backbone, size=size)
    return [_way(way, labelled, plan, request) for way in ("cache", "whole")]


def _way(way: str, labelled: Labelled, plan: FinetunePlan, request: Any) -> Line:
    started = time.perf_counter()
    training = _training(labelled, plan, request, is_whole=way == "whole")
    first = time.perf_counter() - started
    started = time.perf_counter()
    training.run(lambda *_: None, lambda _: None)
    seconds = (time.perf_counter() - started) / len(training.epochs)
    return Line(way, round(first, 1), round(seconds, 1), training.epochs[-1].val_accuracy)


def _training(labelled: Labelled, plan: FinetunePlan, request: Any, *, is_whole: bool) -> Training:
    from extract.backbones import load_network
    from extract.layers import Wanted, cut_network
    from extract.splitting import split_network
    from pipeline.console import Console
    from pipeline.finetune.start import as_module, random_layers
    from pipeline.finetune.story import build_training
    from pipeline.finetune.supply import supply_maps
    from pipeline.memory import Shelf, default_budget

    network, found, _ = load_network(request.backbone, size=request.size)
    split = split_network(request.backbone, network, found.transform, Wanted(), unfreeze=plan.unfreeze)
    layers = as_module(random_layers(split.feature_dim, len(labelled.classes), seed=0))
    lower, source = None, split
    if is_whole and split.layer is not None:
        lower = cut_network(request.backbone, network, found.transform, [Wanted(split.layer, "flatten")]).module
        source = replace(split, layer=None)
    shelf = Shelf(default_budget(), plan.cache_root)
    with Console(quiet=True) as console:
        train, val = supply_maps(labelled, plan, request, source, found.transform, shelf, console)
    return build_training(labelled, plan, split, layers, train, val, "cpu", lower=lower)


def text_of(lines: Sequence[Line]) -> str:
    """The table, and how many times faster the cache is."""
    rows = [(each.way, each.first_seconds, each.epoch_seconds, f"{100 * each.val_accuracy:.2f}") for each in lines]
    cache, whole = lines
    times = whole.epoch_seconds / cache.epoch_seconds
    headers = ("way", "before the first epoch s", "an epoch s", "val % at the end")
    return f"{table(rows, headers, right=(1, 2, 3))}\n\nan epoch from the cache is {times:.1f} times as fast"


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="featurecache bench finetune", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", metavar="DIR", type=Path, help=f"labelled images (default: {DATASET})")
    parser.add_argument("--backbone", metavar="NAME", default="efficientnet_lite0", help="the network")
    parser.add_argument("--unfreeze", metavar="N|PART|all", default="1", help="what is trained (default: 1)")
    parser.add_argument("--size", metavar="S", type=positive, help="side of the input in pixels")
    parser.add_argument("--epochs", metavar="N", type=positive, default=2, help="each way (default: 2)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder:
        images = options.images or write_images(Path(folder))
        how = {"backbone": options.backbone, "unfreeze": options.unfreeze, "size": options.size}
        lines = measure(images, Path(folder) / "cache", **how, epochs=options.epochs)
    print(text_of(lines))
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n", encoding="utf-8")
    return 0


def write_images(folder: Path) -> Path:
    """The data set that is used unless another is named."""
    from pipeline.datasets import write_dataset

    write_dataset(DATASET, folder / DATASET)
    return folder / DATASET


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
