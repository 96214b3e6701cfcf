"""Seconds and memory of `extract` on many images of which none is new, and of opening a large cache (opening.py).

The images are hard links of 1,000 small files, in class folders of 10,000, below a temporary folder that is removed
afterwards. The first run finds the digest of every file and computes 1,000 vectors; the others find that nothing is
left to do. Each is a process of its own, from its start to its end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
import numpy as np

from featurecache.base.errors import PipelineError
from featurecache.base.exits import DONE
from featurecache.base.text import printable, table
from featurecache.bench import opening
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.cli.declare import POSITIVE, option, takes
from featurecache.extract.cache.memo import RACY_NS

N_IMAGES, N_DISTINCT, N_PER_FOLDER = 1_000_000, 1_000, 10_000
SIDE = 8


@dataclass(frozen=True)
class Warm:
    """Seconds of the first run and of each warm one, and the most memory of the warm ones in MB, None without /proc."""

    n_images: int
    first_seconds: float
    seconds: list[float]
    peak_mb: float | None

    @property
    def us_per_image(self) -> float:
        """Microseconds of the median warm run for each image."""
        return 1e6 * median(self.seconds) / self.n_images


def write_links(folder: Path, count: int) -> Path:
    """Write up to 1,000 small images, and `count` hard links to them in class folders; returns the folder of these."""
    from PIL import Image

    rng = np.random.default_rng(0)
    originals = [folder / "originals" / f"{i}.png" for i in range(min(count, N_DISTINCT))]
    originals[0].parent.mkdir(parents=True)
    for path in originals:
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    for start in range(0, count, N_PER_FOLDER):
        links = folder / "images" / f"class {start // N_PER_FOLDER:03d}"
        links.mkdir(parents=True)
        for i in range(start, min(count, start + N_PER_FOLDER)):
            (links / f"photo {i:08d}.png").hardlink_to(originals[i % len(originals)])
    return folder / "images"


# The kernel's own count of a process (ru_maxrss) begins with that of its parent.
_EXTRACT_AND_PRINT_PEAK = """
import sys
from pathlib import Path
from featurecache.cli.main import run
code = run(["extract", sys.argv[1], "--cache", sys.argv[2], "--backbone", "pixels", "--quiet"])
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
print(next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0))
sys.exit(code)
"""


def measure(scratch: Path, count: int, rounds: int, say: Callable[[str], None] = lambda _: None) -> Warm:
    """Extract `count` images once, and then `rounds` times with nothing left to do."""
    say(f"making {count:,} hard links of small images")
    images = write_links(scratch, count)
    # The digest of a file that has just changed is not remembered; making a link counts as a change.
    time.sleep(RACY_NS / 1e9)
    say("first run")
    first, _ = _extract(images, scratch / "cache")
    seconds, peaks = [], []
    for number in range(1, rounds + 1):
        say(f"warm run {number} of {rounds}")
        spent, peak = _extract(images, scratch / "cache")
        seconds.append(spent)
        peaks.append(peak)
    return Warm(count, round(first, 2), [round(each, 3) for each in seconds], max(peaks) / 1e3 if all(peaks) else None)


def _extract(images: Path, cache: Path) -> tuple[float, int]:
    """Return the seconds of a process that extracts these images, and its peak memory in kB, 0 if it is unknown."""
    started = time.perf_counter()
    command = [sys.executable, "-c", _EXTRACT_AND_PRINT_PEAK, str(images), str(cache)]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode != DONE:
        reason = (found.stderr.strip().splitlines() or [f"it ended with {found.returncode}"])[-1]
        raise PipelineError(f"A run of extract failed: {printable(reason)}")
    return time.perf_counter() - started, int(found.stdout.split()[-1])


def text_of(warm: Warm) -> str:
    """The table: one row."""
    row = (
        f"{warm.n_images:,}",
        f"{warm.first_seconds:.1f}",
        f"{median(warm.seconds):.2f}",
        f"{min(warm.seconds):.2f}-{max(warm.seconds):.2f}",
        f"{warm.us_per_image:.1f}",
        "" if warm.peak_mb is None else f"{warm.peak_mb:.0f}",
    )
    headers = ("images", "first run s", "warm run s", "from-to", "us each", "peak MB")
    return table([row], headers, right=range(len(headers)))


@dataclass(frozen=True)
class WarmBench:
    """How many images, how often."""

    count: int = option("--count", metavar="N", type=POSITIVE, default=N_IMAGES, show_default=True, help="images")
    rounds: int = option("--rounds", metavar="N", type=POSITIVE, default=3, show_default=True, help="warm runs")
    full: bool = option(
        "--full", is_flag=True, default=False,
        help=f"open a cache of {opening.N_ROWS_FULL:,} rows (2 GB of disk) instead of {opening.N_ROWS:,}",
    )  # fmt: skip


@click.command(cls=BenchCommand, examples=["featurecache bench warm --count 100000"])
@takes(WarmBench, Output)
def command(asked: WarmBench, output: Output) -> int:
    """Measure `extract` without new images, and opening a cache.

    On hard links of small images in a temporary folder; a million of them take some minutes.
    """
    size = (opening.N_ROWS_FULL, opening.N_SHARDS_FULL) if asked.full else (opening.N_ROWS, opening.N_SHARDS)
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder:
        warm = measure(Path(folder), asked.count, asked.rounds, say)
        opened = opening.measure_opening(Path(folder) / "large", *size, asked.rounds, say)
    figures = {**asdict(warm), "us_per_image": round(warm.us_per_image, 2), "opening": asdict(opened)}
    output.show(f"{text_of(warm)}\n\n{opening.text_of_opening(opened)}", figures)
    return DONE
