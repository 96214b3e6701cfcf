"""How fast extraction is here, against the loop that everyone writes. `make bench` runs it.

    ours         featurecache's own extraction into an empty cache
    plain loop   ImageFolder + DataLoader (2 workers, batch 64) + the weights' float transform on Pillow images + the
                 module as it is loaded, in inference mode
    model only   our engine on pixels that are ready
    decode only  our decoding and transform on one thread

The ways alternate in one process, a few rounds each; the table shows medians in images/s. Loading the backbone and
starting workers is inside both rates, as it is for a user.

A last line compares two backbones in one call, loading left out, with the sum of what it is made of: the two engines
on pixels that are ready, and one pass of decoding on one thread.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.fill import extract_features
from extract.manifest import scan_folder
from extract.request import FeatureRequest, installed_version
from pipeline.tables import table

if TYPE_CHECKING:
    from extract.backbones import Backbone

SIZE = (500, 375)
PLAIN_BATCH, PLAIN_WORKERS = 64, 2


@dataclass(frozen=True)
class Way:
    """One way to go through the images: a name and a function that takes the time it needs."""

    name: str
    go: Callable[[], None]


def write_photos(folder: Path, count: int) -> None:
    """Write `count` JPEG files of 500 x 375, cut and mirrored from scikit-learn's two sample photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(array) for array in load_sample_images().images]
    rng = np.random.default_rng(0)
    (folder / "photo").mkdir(parents=True)
    for i in range(count):
        photo = photos[i % len(photos)]
        scale = rng.uniform(0.6, 1.0)
        width, height = int(photo.width * scale), int(photo.height * scale)
        left, top = (int(rng.integers(0, rest + 1)) for rest in (photo.width - width, photo.height - height))
        cut = photo.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.BICUBIC)
        if i % 4 > 1:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        cut.save(folder / "photo" / f"{i:05d}.jpg", quality=90)


def ours(images: Path, name: str) -> Way:
    """Extraction into a cache that is thrown away."""

    def go() -> None:
        with tempfile.TemporaryDirectory() as cache:
            extract_features(scan_folder(images), [FeatureRequest(name)], Path(cache))

    return Way("ours", go)


def plain_loop(images: Path, backbone: Backbone) -> Way:
    """What a user would otherwise write."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    spec = backbone.transform
    transform = ImageClassification(
        crop_size=spec.crop,
        resize_size=spec.resize,
        mean=spec.mean,
        std=spec.std,
        interpolation=InterpolationMode(spec.interpolation),
    )
    # The module takes uint8 and normalises; the loop's network takes what the transform gives.
    graph: Any = backbone.module.graph

    def go() -> None:
        loader = DataLoader(ImageFolder(str(images), transform), batch_size=PLAIN_BATCH, num_workers=PLAIN_WORKERS)
        with torch.inference_mode():
            vectors = [graph(batch) for batch, _ in loader]
        assert torch.cat(vectors).shape[1] == backbone.feature_dim

    return Way("plain loop", go)


def model_only(count: int, backbone: Backbone) -> Way:
    """The engine alone."""
    import torch

    from extract.engines import build_engine

    engine = build_engine(backbone, device="cpu")
    side = backbone.transform.crop
    pixels = torch.randint(0, 256, (engine.batch_size, 3, side, side), dtype=torch.uint8)

    def go() -> None:
        for _ in range(0, count, engine.batch_size):
            engine.run(pixels)

    return Way("model only", go)


def decode_only(images: Path, backbone: Backbone) -> Way:
    """Reading, decoding and the transform alone, on one thread."""
    from extract.decode import decode_image
    from extract.transform import apply_transform

    def go() -> None:
        for sample in scan_folder(images).samples:
            apply_transform(decode_image(Path(sample.path).read_bytes()), backbone.transform)

    return Way("decode only", go)


def measure(images: Path, name: str, rounds: int) -> str:
    """Run the four ways in turn, `rounds` times, and return the table."""
    count = len(scan_folder(images))
    backbone = FeatureRequest(name).load()
    ways = [
        ours(images, name),
        plain_loop(images, backbone),
        model_only(count, backbone),
        decode_only(images, backbone),
    ]
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(1, rounds + 1):
        for way in ways:
            print(f"round {number} of {rounds}: {name}, {way.name}", file=sys.stderr, flush=True)
            started = time.perf_counter()
            way.go()
            seconds[way.name].append(time.perf_counter() - started)
    base = median(seconds["plain loop"])
    rows = [
        (way.name, f"{count / median(seconds[way.name]):.1f}", f"{base / median(seconds[way.name]):.2f}")
        for way in ways
    ]
    return f"{name}, {count} images\n{table(rows, ('way', 'images/s', 'times the plain loop'), right=(1, 2))}"


def measure_together(images: Path, names: tuple[str, str], rounds: int) -> str:
    """Two backbones in one call against two forward passes and one decode pass, in turn; return a sentence."""
    count = len(scan_folder(images))
    backbones = [FeatureRequest(name).load() for name in names]
    parts = [*(model_only(count, backbone) for backbone in backbones), decode_only(images, backbones[0])]
    together: list[float] = []
    apart: list[float] = []
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}: {' and '.join(names)} in one call", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as cache:
            requests = [FeatureRequest(name) for name in names]
            seconds = extract_features(scan_folder(images), requests, Path(cache)).seconds
        together.append(seconds.total - seconds.load)
        started = time.perf_counter()
        for part in parts:
            part.go()
        apart.append(time.perf_counter() - started)
    return (
        f"{' and '.join(names)} in one call: {median(together):.2f} s; two forward passes and one decode pass: "
        f"{median(apart):.2f} s; ratio {median(together) / median(apart):.2f}"
    )


def main() -> int:
    """Measure and print, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=Path, help="a folder of class folders (default: 200 photographs made here)")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--together", default="efficientnet_lite1", help="a second backbone, to run both in one call")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    versions = ", ".join(f"{name} {installed_version(name)}" for name in ("torch", "torchvision"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as made:
        images = options.images or Path(made) / "photos"
        if options.images is None:
            write_photos(images, 200)
        print(measure(images, options.backbone, options.rounds))
        if options.together != options.backbone:
            print(f"\n{measure_together(images, (options.backbone, options.together), options.rounds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
