"""Images per second of extraction, against what a user would otherwise run.

    ours                 featurecache's own extraction into an empty cache, from reading files to shards on the disk
    plain loop           ImageFolder + DataLoader (2 workers, batch 64) + weights.transforms() on Pillow images + the
                         eager network in inference mode on the same device, vectors kept in memory
    plain channels_last  the same with network and batches in channels_last
    img2vec              img2vec-pytorch, where it is installed and has the network, in lists of 64 images
    model only           our engine on pixels that are ready, all lanes
    ours int8            our extraction with --precision int8, on a CPU and for networks that int8 suits
    model only int8      its engine alone
    decode only          our reading, decoding and fitting, on all cores

All ways alternate in one run, `--rounds` times; the table shows medians. The three that are not ours run in a process
of their own, for our engine changes the settings of its process's allocator, which makes them up to twice as fast.
The share is ours against the bound 1 / (1 / model + 1 / decode), what the two alone would give without a moment lost
between them. Loading networks and exporting the graph is outside all rates (the export has its own line); starting
workers and writing the cache is inside. Networks whose weights are not on this machine get random ones: speed does not
depend on their values.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.defaults import DEFAULT_BACKBONE
from featurecache.base.errors import EngineError
from featurecache.base.exits import DONE
from featurecache.base.text import table
from featurecache.base.versions import installed_version
from featurecache.bench.inputs import N_PHOTOS, SIZE, weights_for, write_photos
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.bench.passes import (
    INT8_WAY,
    LEAST_IMAGES,
    Go,
    decode_only,
    drop_rows,
    engine_of,
    first,
    images_per_pass,
    int8_ways,
    model_only,
    ours,
    own_ways,
    peak_mb,
)
from featurecache.bench.rivals import PLAIN, Job, elsewhere, go_through, ways_of_others
from featurecache.cli.declare import POSITIVE, option, takes
from featurecache.cli.options import PATH, names_in
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.request import FeatureRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.backbones.registry import Backbone

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


def measure(
    images: Path, name: str, *, rounds: int, count: int | None, say: Callable[[str], None], with_int8: bool = True
) -> Measured:
    """Run all ways over the first images of a folder in turn. Raises ExtractError where a network cannot be had."""
    with tempfile.TemporaryDirectory() as scratch, weights_for(name, Path(scratch)):
        return _measure(images, name, Path(scratch), rounds=rounds, count=count, say=say, with_int8=with_int8)


def _measure(
    images: Path,
    name: str,
    scratch: Path,
    *,
    rounds: int,
    count: int | None,
    say: Callable[[str], None],
    with_int8: bool,
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
    if with_int8:
        ways |= _int8_ways(manifest, name, backbone, scratch, say)
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


def _int8_ways(
    manifest: Manifest, name: str, backbone: Backbone, scratch: Path, say: Callable[[str], None]
) -> dict[str, Go]:
    """The ways in int8; none, with a line, where the device or the network does not suit it."""
    from featurecache.extract.engines.torch_engine import choose_device

    if choose_device("auto") != "cpu":
        return {}
    try:
        return int8_ways(manifest, name, backbone, scratch)
    except EngineError as error:
        say(f"{name}: no int8: {error}")
        return {}


def _alternate(
    ways: dict[str, Go], manifest: Manifest, name: str, *, rounds: int, say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, NDArray[np.float32] | None]]:
    """Median images/s of every way, ours and others', and the vectors of the last round.

    Each round begins with a pass of ours that does not count: while others ran, this process stood still for minutes.
    """
    import torch

    from featurecache.extract.engines.torch_engine import choose_device

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
    """Return the machine and versions that the numbers belong to."""
    versions = {name: installed_version(name) for name in LIBRARIES}
    return {"machine": platform.machine(), "cores": count_cores(), "python": platform.python_version(), **versions}


def text_of(measured: Sequence[Measured]) -> str:
    """The machine, and a table with a row for each backbone: rates in images/s."""
    ways = list(dict.fromkeys(way for each in measured for way in each.rates))
    headers = ("backbone", "images", *ways, "x plain", "int8 x fp32", "share", "cosine", "peak MB", "export s")
    rows = [
        (
            each.backbone,
            str(each.n_images),
            *(f"{each.rates[way]:.1f}" if way in each.rates else "" for way in ways),
            f"{each.times_plain:.2f}",
            f"{each.rates[INT8_WAY] / each.rates['ours']:.2f}" if INT8_WAY in each.rates else "",
            f"{each.share_of_bound:.2f}",
            f"{each.cosine:.6f}",
            "" if each.peak_mb is None else f"{each.peak_mb:.0f}",
            f"{each.prepare_seconds:.1f}",
        )
        for each in measured
    ]
    here = ", ".join(f"{name} {value}" for name, value in machine().items() if value)
    return f"{here}\n\n{table(rows, headers, right=range(1, len(headers)))}"


@dataclass(frozen=True)
class ExtractBench:
    """Which networks, on which images, how often."""

    images: Path | None = option(
        "--images", metavar="DIR", type=PATH, help=f"class folders (default: {N_PHOTOS:,} photos made here)"
    )
    backbone: Sequence[str] = option(
        "--backbone",
        metavar="NAME",
        multiple=True,
        help=f"a network (default: {DEFAULT_BACKBONE}); repeat it for several",
    )
    rounds: int = option(
        "--rounds", metavar="N", type=POSITIVE, default=3, show_default=True, help="passes of each way"
    )
    count: int | None = option(
        "--count", metavar="N", type=POSITIVE, help="images (default: about 10 s a pass of ours)"
    )
    no_int8: bool = option("--no-int8", is_flag=True, default=False, help="no extraction in int8")
    together: bool = option("--together", is_flag=True, default=False, help="the first two backbones in one call, too")


@click.command(
    cls=BenchCommand,
    examples=["featurecache bench extract --backbone resnet50 --backbone vgg16"],
)
@takes(ExtractBench, Output)
def command(asked: ExtractBench, output: Output) -> int:
    """Measure images/s of extraction and of other tools."""
    names = names_in("--backbone", asked.backbone or [DEFAULT_BACKBONE])
    measured, pair = [], None
    with tempfile.TemporaryDirectory() as made:
        images = asked.images or Path(made) / "photos"
        if asked.images is None:
            say(f"making {N_PHOTOS} photographs of {SIZE[0]} x {SIZE[1]}")
            write_photos(images, N_PHOTOS)
        for name in names:
            measured.append(
                measure(images, name, rounds=asked.rounds, count=asked.count, say=say, with_int8=not asked.no_int8)
            )
        if asked.together and len(names) > 1:
            pair = measure_together(images, names[:2], asked.rounds)
    text = [text_of(measured), *(f"{each.backbone}: {each.engine}" for each in measured)]
    if pair is not None:
        text.append(
            f"{' and '.join(pair['backbones'])} in one call: {pair['together']:.2f} s; two forward passes and one "
            f"decode pass: {pair['apart']:.2f} s; ratio {pair['ratio']:.2f}"
        )
    figures = {"machine": machine(), "backbones": [asdict(each) for each in measured], "together": pair}
    output.show("\n\n".join(text), figures)
    return DONE
