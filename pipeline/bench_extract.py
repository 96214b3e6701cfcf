"""How fast extraction is here, against what a user would otherwise run. `featurecache bench extract` runs it.

    ours                 featurecache's own extraction into an empty cache, from reading files to shards on the disk
    plain loop           ImageFolder + DataLoader (2 workers, batch 64) + weights.transforms() on Pillow images + the
                         eager network in inference mode on the same device, vectors kept in memory
    plain channels_last  the same with network and batches in channels_last
    img2vec              img2vec-pytorch, where it is installed and has the network, in lists of 64 images
    model only           our engine on pixels that are ready, all lanes
    decode only          our reading, decoding and fitting, on all cores

All ways alternate in one run, `--rounds` times; the table shows medians. The three that are not ours run in a process
of their own, for our engine changes the settings of its process's allocator, which makes them up to twice as fast.
The share is ours against the bound 1 / (1 / model + 1 / decode), what the two alone would give without a moment lost
between them. Loading networks and exporting the graph is outside all rates (the export is told by itself); starting
workers and writing the cache is inside. Networks whose weights are not on this machine get random ones: speed does not
depend on their values.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.cores import count_cores
from extract.fill import extract_features
from extract.manifest import Manifest, scan_folder
from extract.request import FeatureRequest
from extract.versions import installed_version
from pipeline.bench_inputs import N_PHOTOS, SIZE, weights_for, write_photos
from pipeline.bench_rivals import PLAIN, Job, elsewhere, go_through, ways_of_others
from pipeline.bench_ways import (
    LEAST_IMAGES,
    Go,
    decode_only,
    drop_rows,
    engine_of,
    first,
    images_per_pass,
    model_only,
    ours,
    own_ways,
    peak_mb,
)
from pipeline.option_types import positive
from pipeline.tables import table

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIBRARIES = ("torch", "torchvision", "onnxruntime", "img2vec-pytorch")


@dataclass(frozen=True)
class Measured:
    """One backbone: medians in images/s by way, and what follows from them.

    cosine: the smallest over all images between our vector and the plain loop's. peak_mb: of a process that does
    nothing but our extraction. prepare_seconds: exporting and timing the graph, once per network and machine.
    """

    backbone: str
    n_images: int
    engine: str
    rates: dict[str, float]
    times_plain: float
    share_of_bound: float
    cosine: float
    peak_mb: float | None
    prepare_seconds: float


def measure(images: Path, name: str, *, rounds: int, count: int | None, say: Callable[[str], None]) -> Measured:
    """Run all ways over the first images of a folder in turn. Raises ExtractError where a network cannot be had."""
    with tempfile.TemporaryDirectory() as scratch, weights_for(name, Path(scratch)):
        return _measure(images, name, Path(scratch), rounds=rounds, count=count, say=say)


def _measure(
    images: Path, name: str, scratch: Path, *, rounds: int, count: int | None, say: Callable[[str], None]
) -> Measured:
    whole = scan_folder(images)
    say(f"{name}: preparing")
    started = time.perf_counter()
    ours(first(whole, 1), name, scratch)()
    prepare_seconds = time.perf_counter() - started
    n = count or images_per_pass(first(whole, LEAST_IMAGES), name, scratch)
    manifest = first(whole, min(n, len(whole)))
    backbone = FeatureRequest(name).load()
    ways = own_ways(manifest, name, backbone, scratch)
    rates, vectors = _alternate(ways, manifest, name, rounds=rounds, say=say)
    bound = 1.0 / (1.0 / rates["model only"] + 1.0 / rates["decode only"])
    return Measured(
        backbone=name,
        n_images=len(manifest),
        engine=engine_of(backbone, scratch).reason,
        rates={way: round(rate, 2) for way, rate in rates.items()},
        times_plain=round(rates["ours"] / rates[PLAIN], 2),
        share_of_bound=round(rates["ours"] / bound, 3),
        cosine=smallest_cosine(vectors["ours"], vectors[PLAIN]),
        peak_mb=peak_mb(manifest, name, scratch),
        prepare_seconds=round(prepare_seconds, 1),
    )


def _alternate(
    ways: dict[str, Go], manifest: Manifest, name: str, *, rounds: int, say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, NDArray[np.float32] | None]]:
    """Median images/s of every way, ours and others', and the vectors of the last round.

    Each round begins with a pass of ours that does not count: while others ran, this process stood still for minutes.
    """
    import torch

    from extract.engines.torch_engine import choose_device

    job = Job(name, str(manifest.root), len(manifest), torch.hub.get_dir(), choose_device("auto"))
    seconds: dict[str, list[float]] = {}
    vectors: dict[str, NDArray[np.float32] | None] = {}
    with elsewhere() as process:
        for number in range(1, rounds + 1):
            ways["ours"]()
            for way in (*ways, *ways_of_others(name)):
                say(f"{name}: round {number} of {rounds}, {len(manifest)} images, {way}")
                spent, vectors[way] = ways[way]() if way in ways else process.submit(go_through, way, job).result()
                seconds.setdefault(way, []).append(spent)
    return {way: len(manifest) / median(spent) for way, spent in seconds.items()}, vectors


def smallest_cosine(ours: Any, theirs: Any) -> float:
    """The smallest cosine of two vectors of one image: rows of (N, D) and (N, D)."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / lengths).min())


def measure_together(images: Path, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Two backbones in one call against two forward passes and one decode pass, in turn: medians in seconds."""
    manifest = scan_folder(images)
    with tempfile.TemporaryDirectory() as scratch:
        requests = [FeatureRequest(name) for name in names]
        extract_features(first(manifest, 1), requests, Path(scratch) / "cache")
        backbones = [request.load() for request in requests]
        parts = [model_only(len(manifest), backbone, Path(scratch)) for backbone in backbones]
        parts.append(decode_only(manifest, backbones[0]))
        together: list[float] = []
        apart: list[float] = []
        for _ in range(rounds):
            drop_rows(Path(scratch))
            seconds = extract_features(manifest, requests, Path(scratch) / "cache").seconds
            together.append(seconds.total - seconds.load)
            apart.append(sum(part()[0] for part in parts))
    ratio = median(together) / median(apart)
    return {"backbones": list(names), "together": median(together), "apart": median(apart), "ratio": round(ratio, 3)}


def machine() -> dict[str, Any]:
    """What a number is worth nothing without."""
    versions = {name: installed_version(name) for name in LIBRARIES}
    return {"machine": platform.machine(), "cores": count_cores(), "python": platform.python_version(), **versions}


def text_of(measured: Sequence[Measured]) -> str:
    """The machine, and a table with a row for each backbone: rates in images/s."""
    ways = list(dict.fromkeys(way for each in measured for way in each.rates))
    headers = ("backbone", "images", *ways, "x plain", "share", "cosine", "peak MB", "export s")
    rows = [
        (
            each.backbone,
            str(each.n_images),
            *(f"{each.rates[way]:.1f}" if way in each.rates else "" for way in ways),
            f"{each.times_plain:.2f}",
            f"{each.share_of_bound:.2f}",
            f"{each.cosine:.6f}",
            "" if each.peak_mb is None else f"{each.peak_mb:.0f}",
            f"{each.prepare_seconds:.1f}",
        )
        for each in measured
    ]
    here = ", ".join(f"{name} {value}" for name, value in machine().items() if value)
    return f"{here}\n\n{table(rows, headers, right=range(1, len(headers)))}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print, from the command line."""
    parser = argparse.ArgumentParser(prog="featurecache bench extract", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help=f"class folders (default: {N_PHOTOS:,} photos made here)"
    )
    parser.add_argument("--backbone", metavar="A,B", default="efficientnet_lite0", help="networks, with commas between")
    parser.add_argument("--rounds", metavar="N", type=positive, default=3, help="passes of each way (default: 3)")
    parser.add_argument("--count", metavar="N", type=positive, help="images (default: about 10 s a pass of ours)")
    parser.add_argument("--together", action="store_true", help="the first two backbones in one call, too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers as well")
    options = parser.parse_args(argv)
    names = [name for name in options.backbone.split(",") if name]
    measured, pair = [], None
    with tempfile.TemporaryDirectory() as made:
        images = options.images or Path(made) / "photos"
        if options.images is None:
            _say(f"making {N_PHOTOS} photographs of {SIZE[0]} x {SIZE[1]}")
            write_photos(images, N_PHOTOS)
        for name in names:
            measured.append(measure(images, name, rounds=options.rounds, count=options.count, say=_say))
        if options.together and len(names) > 1:
            pair = measure_together(images, names[:2], options.rounds)
    print(text_of(measured))
    print("".join(f"\n{each.backbone}: {each.engine}" for each in measured))
    if pair is not None:
        print(f"\n{' and '.join(pair['backbones'])} in one call: {pair['together']:.2f} s; two forward passes and one "
              f"decode pass: {pair['apart']:.2f} s; ratio {pair['ratio']:.2f}")  # fmt: skip
    if options.json is not None:
        found = {"machine": machine(), "backbones": [asdict(each) for each in measured], "together": pair}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
