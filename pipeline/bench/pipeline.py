"""The pipeline around the network: images/s where the network costs nothing, and where the disk is slow.

    behind a GPU   JPEGs of 16 x 12 at side 32, as before a GPU, with an engine that returns at once: what is left is
                   reading, decoding and handing over, so it is the ceiling of this machine for any network; once
                   decoded by threads, and once by processes, without the time that these take to start
    slow disk      two lanes as on a CPU, with an engine that takes 11 ms an image, and 20 ms to read each file; the
                   share is its rate over that without the 20 ms

The seconds of the CPU are those of all threads of this process. Nothing is written.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import click
import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.exits import DONE
from featurecache.base.text import count, table
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.cli.declare import POSITIVE, Whole, option, takes
from featurecache.extract.cache.spec import FULL, FULL_RANGE, image_digest
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images import read_ahead
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.sources import HashedFile, read_hashed
from featurecache.extract.job.compute import FEW_IMAGES, compute_vectors
from featurecache.extract.job.plan import Group

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from featurecache.extract.job.decoding.decoder import Item

N_IMAGES, N_FILES = 20_000, 2_000
SIZE, SIDE = (16, 12), 32
TRANSFORM = TransformSpec(SIDE, SIDE, "bicubic", True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
READ_SECONDS, SECONDS_PER_IMAGE = 0.020, 0.011
# Four seconds on two lanes: until the first files are there the lanes wait.
N_SLOW = 724


class TimedEngine:
    """An engine that takes so many seconds an image and computes nothing; see `extract.engines.protocol.Engine`."""

    name, precision, reason = "none", "fp32", "none"

    def __init__(self, device: str, *, n_lanes: int, batch_size: int, seconds: float) -> None:
        self.device, self.n_lanes, self.batch_size, self.seconds = device, n_lanes, batch_size, seconds

    def run(self, batch: Tensor | NDArray[np.uint8]) -> np.ndarray:
        """Return zeros (B, 1) after its time."""
        if self.seconds:
            time.sleep(self.seconds * len(batch))
        return np.zeros((len(batch), 1), dtype=np.float32)

    def allow_lanes(self, n_lanes: int) -> None:
        """It takes as many as it has."""


class Everything(Group):
    """A group that misses every image, and has no cache."""

    def __init__(self, engine: TimedEngine, transform: TransformSpec = TRANSFORM) -> None:
        super().__init__({})
        self.engine = engine
        self._own = SimpleNamespace(transform=transform, decode=FULL, range=FULL_RANGE, view="")

    @property
    def _spec(self) -> Any:
        return self._own

    def misses(self, digest: bytes) -> bool:
        """Return True."""
        return True


@dataclass(frozen=True)
class Rates:
    """Medians: images/s and microseconds of the CPU per image before a GPU; images/s on a fast and on a slow disk.

    by_processes: images/s before a GPU, decoded by n_processes; 0 for none.
    """

    per_second: float
    cpu_us: float
    n_processes: int
    by_processes: float
    fast_disk: float
    slow_disk: float

    @property
    def share(self) -> float:
        """The part of the rate that is left on a slow disk."""
        return self.slow_disk / self.fast_disk


def write_small(folder: Path, count: int) -> list[Item]:
    """Write `count` different JPEGs of 16 x 12, and return them with their digests."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    items: list[Item] = []
    for i in range(count):
        path = folder / f"{i:05d}.jpg"
        Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(path)
        items.append((image_digest(path.read_bytes()), Sample(str(path), path.name)))
    return items


def measure(items: Sequence[Item], *, count: int, n_slow: int, rounds: int, n_processes: int) -> Rates:
    """Run `count` images through the pipeline of a GPU, by threads and by processes, and `n_slow` on both disks."""
    gpu = TimedEngine("cuda", n_lanes=2, batch_size=256, seconds=0)
    lanes = TimedEngine("cpu", n_lanes=2, batch_size=4, seconds=SECONDS_PER_IMAGE)
    many, few = ([items[i % len(items)] for i in range(n)] for n in (count, n_slow))
    _pass(few, gpu)  # which imports
    gpus, disks, slow_disks, rates = [], [], [], []
    for _ in range(rounds):
        gpus.append(_pass(many, gpu))
        rates.append(_rate_in_processes(many, gpu, n_processes) if n_processes else 0.0)
        disks.append(_pass(few, lanes))
        slow_disks.append(_pass(few, lanes, slow_disk()))
    return Rates(
        per_second=round(count / median(wall for wall, _ in gpus), 1),
        cpu_us=round(1e6 * median(cpu for _, cpu in gpus) / count, 1),
        n_processes=n_processes,
        by_processes=round(median(rates), 1),
        fast_disk=round(n_slow / median(wall for wall, _ in disks), 1),
        slow_disk=round(n_slow / median(wall for wall, _ in slow_disks), 1),
    )


def slow_disk() -> AbstractContextManager[Any]:
    """Return a context in which reading a file ahead takes 20 ms more."""

    def slowly(path: str) -> HashedFile | None:
        time.sleep(READ_SECONDS)
        return read_hashed(path)

    return patch.object(read_ahead, "read_hashed", slowly)


def _pass(
    items: Sequence[Item], engine: TimedEngine, disk: AbstractContextManager[Any] | None = None
) -> tuple[float, float]:
    """Return the seconds, and those of the CPU, in which the images go through once."""
    with disk or nullcontext():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in compute_vectors(items, [Everything(engine)], max_pixels=MAX_PIXELS):
            pass
        return time.perf_counter() - wall, time.process_time() - cpu


def _rate_in_processes(items: Sequence[Item], engine: TimedEngine, n_processes: int) -> float:
    """Return the images/s of processes, from the first tenth of the images on."""
    n_done, started, before = 0, 0.0, 0
    for chunk in compute_vectors(items, [Everything(engine)], max_pixels=MAX_PIXELS, decode_processes=n_processes):
        n_done += len(chunk.decoded)
        if not before and 10 * n_done >= len(items):
            started, before = time.perf_counter(), n_done
    return (n_done - before) / (time.perf_counter() - started)


def text_of(rates: Rates) -> str:
    """The table: a row for each."""
    by_processes = (
        f"the same, by {count(rates.n_processes, 'process', 'processes')}",
        f"{rates.by_processes:,.0f}",
        "",
        "",
    )
    rows = [
        ("behind a GPU, 16 x 12 JPEGs, no network", f"{rates.per_second:,.0f}", f"{rates.cpu_us:.0f}", ""),
        *([by_processes] if rates.n_processes else []),
        ("two lanes, 11 ms an image", f"{rates.fast_disk:,.0f}", "", ""),
        ("the same, 20 ms to read each file", f"{rates.slow_disk:,.0f}", "", f"{rates.share:.2f}"),
    ]
    return table(rows, ("pipeline", "images/s", "CPU us each", "share"), right=range(1, 4))


@dataclass(frozen=True)
class PipelineBench:
    """How many images, how often."""

    count: int = option(
        "--count", metavar="N", type=POSITIVE, default=N_IMAGES, show_default=True, help="images behind a GPU"
    )
    slow: int = option(
        "--slow", metavar="N", type=POSITIVE, default=N_SLOW, show_default=True, help="images on a slow disk"
    )
    rounds: int = option("--rounds", metavar="N", type=POSITIVE, default=5, show_default=True, help="passes of each")
    processes: int = option(
        "--processes", metavar="N", type=Whole(0), default=count_cores(), show_default="one a core",
        help=f"processes that decode; 0 for none, as for {FEW_IMAGES} images or fewer",
    )  # fmt: skip


def started_processes(asked: int, n_images: int) -> int:
    """Return how many of the processes asked for a run of so many images starts on this system: all or none."""
    return asked if n_images > FEW_IMAGES and "forkserver" in multiprocessing.get_all_start_methods() else 0


@click.command(cls=BenchCommand, examples=["featurecache bench pipeline --rounds 3"])
@takes(PipelineBench, Output)
def command(asked: PipelineBench, output: Output) -> int:
    """Measure reading and decoding around the network.

    With engines that compute nothing: behind a GPU, and in two lanes of a CPU with a slow disk.
    """
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder:
        say(f"making {min(N_FILES, asked.count):,} images of {SIZE[0]} x {SIZE[1]}")
        items = write_small(Path(folder) / "images", min(N_FILES, asked.count))
        n_processes = started_processes(asked.processes, asked.count)
        rates = measure(items, count=asked.count, n_slow=asked.slow, rounds=asked.rounds, n_processes=n_processes)
    output.show(text_of(rates), {**asdict(rates), "share": round(rates.share, 3)})
    return DONE
