"""Seconds and memory of a command for one new image, with a network that was exported before.

    predict      `predict RUN one.jpg`, its features not yet in the cache of the run
    extract      `extract one.jpg` into the cache of the run
    new cache    `extract one.jpg` into a folder that does not exist yet

Each is a process of its own, from its start to its end, in turn; the folder of the user for exported graphs is a
temporary one, too. Byte code is kept, as by an installed package, also where the environment forbids it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from featurecache.base.defaults import DEFAULT_BACKBONE
from featurecache.base.errors import PipelineError
from featurecache.base.exits import DONE
from featurecache.base.text import printable, table
from featurecache.base.user_folder import VARIABLE
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.cli.declare import POSITIVE, option, takes

N_CLASSES, N_IMAGES = 3, 20
SIZE = (500, 375)
LINES = ("predict", "extract", "new cache")

# The kernel's own count of a process (ru_maxrss) begins with that of its parent.
_RUN_AND_PRINT_COST = """
import json, sys, time
from pathlib import Path
from featurecache.cli.main import run
code = run(sys.argv[1:])
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
has_torch = any(name in sys.modules for name in ("torch", "sklearn"))
print(json.dumps({"cpu_seconds": time.process_time(), "peak_mb": peak / 1e3, "has_torch": has_torch}))
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds, those of the processor, the most memory in MB, 0 without /proc.

    has_torch: whether it imported PyTorch or scikit-learn.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    has_torch: bool


def write_image(path: Path, seed: int) -> Path:
    """Write a JPEG of smooth noise that no other seed gives."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=88)
    return path


def measure(
    scratch: Path, backbone: str, rounds: int, say: Callable[[str], None] = lambda _: None
) -> dict[str, list[Cost]]:
    """Return the costs of each line, one for each round. Raises PipelineError for a command that fails."""
    surroundings = {**os.environ, VARIABLE: str(scratch / "user")}
    surroundings.pop("PYTHONDONTWRITEBYTECODE", None)
    for number in range(N_CLASSES * N_IMAGES):
        write_image(scratch / "images" / f"class {number % N_CLASSES}" / f"{number}.jpg", number)
    images, run, cache = (str(scratch / name) for name in ("images", "run", "cache"))
    say(f"a run on {N_CLASSES * N_IMAGES} images, for which {backbone} is exported")
    _run(["run", images, "--backbone", backbone, "--heads", "logistic", "--cache", cache, "--out", run], surroundings)
    found: dict[str, list[Cost]] = {line: [] for line in LINES}
    for number in range(rounds + 1):  # the first fills the caches of files, and does not count
        say(f"round {number} of {rounds}" if number else "a round that does not count")
        for place, line in enumerate(LINES):
            one = str(write_image(scratch / "new" / f"{number} {line}.jpg", 1_000 * (number + 1) + place))
            into = str(scratch / f"new cache {number}") if line == "new cache" else cache
            words = ["predict", run, one] if line == "predict" else ["extract", one, "--backbone", backbone]
            cost = _run([*words, "--cache", into], surroundings)
            found[line] += [cost] if number else []
    return found


def _run(words: list[str], surroundings: Mapping[str, str]) -> Cost:
    started = time.perf_counter()
    command = [sys.executable, "-c", _RUN_AND_PRINT_COST, *words, "--quiet"]
    ended = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    seconds = time.perf_counter() - started
    if ended.returncode != DONE:
        reason = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]
        raise PipelineError(f"A run of {words[0]} failed: {printable(reason)}")
    return Cost(seconds, **json.loads(ended.stdout.splitlines()[-1]))


def figures_of(costs: Mapping[str, list[Cost]]) -> dict[str, Any]:
    """Return the medians and all rounds of each line, as plain values."""
    names = ("seconds", "cpu_seconds", "peak_mb")
    medians = {
        line: {name: round(median(getattr(each, name) for each in found), 3) for name in names}
        for line, found in costs.items()
    }
    return {"medians": medians, "rounds": {line: [*map(asdict, found)] for line, found in costs.items()}}


def text_of(costs: Mapping[str, list[Cost]]) -> str:
    """Return the table: a row for each line."""
    rows = []
    for line, found in costs.items():
        seconds = [each.seconds for each in found]
        rows.append((
            line,
            f"{median(seconds):.2f}",
            f"{min(seconds):.2f}-{max(seconds):.2f}",
            f"{median(each.cpu_seconds for each in found):.2f}",
            f"{max(each.peak_mb for each in found):.0f}",
            "yes" if any(each.has_torch for each in found) else "no",
        ))  # fmt: skip
    return table(rows, ("one image", "s", "from-to", "CPU s", "peak MB", "PyTorch"), right=range(1, 5))


@dataclass(frozen=True)
class QuickBench:
    """Which network, how often."""

    backbone: str = option(
        "--backbone", metavar="NAME", default=DEFAULT_BACKBONE, show_default=True, help="the network"
    )
    rounds: int = option("--rounds", metavar="N", type=POSITIVE, default=5, show_default=True, help="of each command")


@click.command(cls=BenchCommand, examples=["featurecache bench quick --rounds 3"])
@takes(QuickBench, Output)
def command(asked: QuickBench, output: Output) -> int:
    """Measure `predict` and `extract` of one new image.

    With a network that was exported before; everything is in a temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder:
        costs = measure(Path(folder), asked.backbone, asked.rounds, say)
    output.show(text_of(costs), figures_of(costs))
    return DONE
