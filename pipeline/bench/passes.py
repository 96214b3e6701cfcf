"""Our own extraction and its parts, as calls to be timed; each lasts one pass over some images."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.cores import count_cores
from featurecache.extract.cache.index import SHARDS_FOLDER
from featurecache.extract.cache.ranges import read_ranges
from featurecache.extract.cache.spec import INT8, PRECISIONS, slug
from featurecache.extract.cache.store import read_spec
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.request import FeatureRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.backbones.registry import Backbone

# Slow networks see fewer of the images, so many that one pass of ours takes about this long, in whole batches.
PASS_SECONDS, LEAST_IMAGES = 10.0, 64
# Our extraction in int8 among the ways.
INT8_WAY = "ours int8"

# Go through the images once; returns the seconds that it took without loading the network, and the vectors (n, D).
Go = Callable[[], "tuple[float, NDArray[np.float32] | None]"]


def own_ways(manifest: Manifest, name: str, backbone: Backbone, scratch: Path) -> dict[str, Go]:
    """What of the table is our own, by name."""
    return {
        "ours": ours(manifest, name, scratch),
        "model only": model_only(len(manifest), backbone, scratch),
        "decode only": decode_only(manifest, backbone),
    }


def int8_ways(manifest: Manifest, name: str, backbone: Backbone, scratch: Path) -> dict[str, Go]:
    """Our extraction in int8 and its engine alone, by name; into a cache of its own.

    Raises EngineError for a network that int8 does not suit.
    """
    extract_features(first(manifest, 1), [FeatureRequest(name, precision=INT8)], scratch / "int8" / "cache")
    return {
        INT8_WAY: ours(manifest, name, scratch / "int8", INT8),
        "model only int8": model_only(len(manifest), backbone, scratch / "int8"),
    }


def ours(manifest: Manifest, name: str, scratch: Path, precision: str = PRECISIONS[0]) -> Go:
    """Extraction into a cache that holds the exported graph and no row."""
    request = FeatureRequest(name, precision=precision)

    def go() -> tuple[float, NDArray[np.float32]]:
        drop_rows(scratch)
        report = extract_features(manifest, [request], scratch / "cache")
        return report.seconds.total - report.seconds.load, report.filled[0].cache.lookup(report.digests)

    return go


def engine_of(backbone: Backbone, scratch: Path) -> Any:
    """The engine that extraction chose, with the graph that it left in the cache."""
    from featurecache.extract.engines.build import build_engine
    from featurecache.extract.engines.graph_store import GraphFolder
    from featurecache.extract.engines.protocol import source_of

    folder = next((scratch / "cache").glob(f"{slug(backbone.name)}-*"))
    source, graphs, spec = source_of(backbone), GraphFolder(folder), read_spec(folder)
    if spec is not None and spec.precision == INT8:
        return build_engine(source, precision=INT8, ranges=read_ranges(folder, spec), graphs=graphs)
    return build_engine(source, graphs=graphs)


def model_only(count: int, backbone: Backbone, scratch: Path) -> Go:
    """The engine alone, every lane at work."""
    import torch

    engine = engine_of(backbone, scratch)
    side = backbone.transform.crop
    pixels = torch.randint(0, 256, (engine.batch_size, 3, side, side), dtype=torch.uint8)
    n_batches = -(-count // engine.batch_size)

    def go() -> tuple[float, None]:
        started = time.perf_counter()
        with ThreadPoolExecutor(engine.n_lanes) as pool:
            list(pool.map(lambda _: engine.run(pixels), range(n_batches)))
        return time.perf_counter() - started, None

    return go


def decode_only(manifest: Manifest, backbone: Backbone) -> Go:
    """Reading, decoding and the transform alone, on all cores."""
    from featurecache.extract.images.decode import decode_image
    from featurecache.extract.images.transform import apply_transform
    from featurecache.extract.job.compute import torch_threads

    def decode(path: Path) -> None:
        apply_transform(decode_image(path.read_bytes()), backbone.transform)

    def go() -> tuple[float, None]:
        started = time.perf_counter()
        with torch_threads(1), ThreadPoolExecutor(count_cores()) as pool:
            list(pool.map(decode, [Path(sample.path) for sample in manifest.samples]))
        return time.perf_counter() - started, None

    return go


def first(manifest: Manifest, n: int) -> Manifest:
    """The first n images."""
    return replace(manifest, samples=manifest.samples[:n])


def images_per_pass(few: Manifest, name: str, scratch: Path) -> int:
    """How many images make a pass of a good length, by a try with few."""
    seconds, _ = ours(few, name, scratch)()
    n = PASS_SECONDS * len(few) / seconds
    return LEAST_IMAGES * max(1, round(n / LEAST_IMAGES))


# Run by a process of its own. The kernel's own count of a process (ru_maxrss) begins with that of its parent.
_EXTRACT_AND_PRINT_PEAK = """
import sys, torch
from dataclasses import replace
from pathlib import Path
from featurecache.extract.job.extract import extract_features
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.job.request import FeatureRequest
torch.hub.set_dir(sys.argv[4])
images = scan_folder(sys.argv[1])
images = replace(images, samples=images.samples[: int(sys.argv[5])])
extract_features(images, [FeatureRequest(sys.argv[2])], Path(sys.argv[3]))
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
"""


def peak_mb(manifest: Manifest, name: str, scratch: Path) -> float | None:
    """The most memory that a process which extracts these images keeps, in MB; None where there is no /proc."""
    import torch

    if not Path("/proc/self/status").exists():
        return None
    drop_rows(scratch)
    arguments = (str(manifest.root), name, str(scratch / "cache"), torch.hub.get_dir(), str(len(manifest)))
    command = [sys.executable, "-c", _EXTRACT_AND_PRINT_PEAK, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return round(int(found.stdout) / 1e3)


def drop_rows(scratch: Path) -> None:
    """Empty the cache but for the graph."""
    for shards in (scratch / "cache").glob(f"*/{SHARDS_FOLDER}"):
        rmtree(shards)
