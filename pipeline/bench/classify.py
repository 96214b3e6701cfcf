"""Seconds and memory of a whole `classify`, with the features in memory and in a file.

    seconds    of the command, from the labels to the report
    process    the most memory of the process, in MB: libraries, features, heads, and pages of files that it could drop
    own        what it cannot drop (anonymous) beyond the libraries: features, heads, and the list of the images. At
               most 2.5 times the features are wanted, and from a file at most the budget, 0.5 times. What libraries
               take is what the same command on a few images still has when it is done.

The second line has half of the features' size as its --memory, so that they are read from a file, and with them what
else of a head is large. The tables of both, settings chosen, accuracies and all, are compared number by number; where
they differ the exit code is 1.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import click

from featurecache.base.defaults import DEFAULT_BACKBONE, SPLITS
from featurecache.base.errors import ExtractError, PipelineError
from featurecache.base.exits import DONE, FAILED
from featurecache.base.text import table
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.cli.declare import option, takes
from featurecache.cli.options import PATH, CacheOption
from featurecache.extract.images.read import read_images
from featurecache.extract.job.request import FeatureRequest
from featurecache.runs.folder import RESULTS_FILE
from featurecache.runs.reading import read_json

# Of the images, about so many are the few whose memory is that of the libraries.
FEW = 300
# Bytes: more than any machine has, so that features stay in memory.
NO_LIMIT = 1e18
# The budget of the second line, as a part of the features, and how many times the features are wanted at most.
BUDGET = 0.5
WANTED = {"in memory": 2.5, "from a file": BUDGET}
# Memory is looked at so often, in seconds: a block of rows takes longer.
INTERVAL = 0.01
# What two runs of the same heads may differ in.
PASSING = ("fit_seconds", "predict_seconds", "seconds")


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds, and bytes: the most memory, the most that was anonymous, and what of it was left."""

    seconds: float
    process: float
    anonymous: float
    left: float


@dataclass(frozen=True)
class Asked:
    """What is measured."""

    images: Path
    cache_root: Path
    request: FeatureRequest
    heads: tuple[str, ...]

    def run(self, out: Path, memory: float, *, few: int | None = None) -> Cost:
        """Classify all images, or about so few, in a process of its own. Raises PipelineError with its message.

        memory: bytes of features held in memory.
        """
        job = {"images": str(self.images), "cache": str(self.cache_root), "request": asdict(self.request),
                "heads": self.heads, "out": str(out), "few": few, "memory": memory}  # fmt: skip
        command = [
            sys.executable,
            "-c",
            "from featurecache.bench.classify import report_cost; report_cost()",
            json.dumps(job),
        ]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode < 0:
            raise PipelineError(
                f"It was killed by signal {-found.returncode}, most likely for want of memory: name fewer --heads."
            )
        if found.returncode:
            raise PipelineError(found.stderr.strip())
        return Cost(**json.loads(found.stdout.splitlines()[-1]))


@dataclass(frozen=True)
class Found:
    """The costs of a few images, of all in memory and of all from a file, and whether the tables of both are one."""

    features: float
    few: Cost
    costs: dict[str, Cost]
    n_settings: int
    best: dict[str, float]
    """Head -> test accuracy."""
    failed: list[str]
    """Why heads could not be trained."""
    same: bool

    def own(self, name: str) -> float:
        """Bytes of features and heads."""
        return self.costs[name].anonymous - self.few.left

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        shares = {name: self.own(name) / self.features for name in self.costs}
        return {**asdict(self), "own_by_features": shares, "wanted": WANTED}


def report_cost() -> None:
    """Classify as the JSON in the first argument says, and print the cost as JSON."""
    from featurecache.base.errors import ClassifyError
    from featurecache.cli.advice import naming_commands
    from featurecache.cli.console import Console
    from featurecache.evaluate.backbone_choice import subsample
    from featurecache.evaluate.classify import classify
    from featurecache.evaluate.classify_plan import ClassifyPlan
    from featurecache.features.feature_arrays import return_freed_memory
    from featurecache.report.page import report_on

    job = json.loads(sys.argv[1])
    done, seen = Event(), [0]
    watch = Thread(target=_watch, args=(done, seen), daemon=True)
    watch.start()
    request = FeatureRequest(**job["request"])
    plan = ClassifyPlan((request,), tuple(job["heads"]), Path(job["cache"]), Path(job["out"]),
                        memory=job["memory"])  # fmt: skip
    began = time.perf_counter()
    try:
        manifest = read_images(job["images"])
        if job["few"]:
            manifest, _ = subsample(manifest, job["few"], seed=0)
        with Console(quiet=True) as console, naming_commands(job["images"]):
            classify(
                manifest, plan, console, report=lambda run: report_on(run, job["images"], plan.cache_root, console)
            )
    except (PipelineError, ExtractError, ClassifyError) as error:
        sys.exit(str(error))
    seconds = time.perf_counter() - began
    done.set()
    watch.join()
    gc.collect()
    return_freed_memory()
    print(json.dumps(asdict(Cost(seconds, 1024 * memory_kib("VmHWM"), 1024 * seen[0], 1024 * memory_kib("RssAnon")))))


def _watch(done: Event, seen: list[int]) -> None:
    while not done.wait(INTERVAL):
        seen[0] = max(seen[0], memory_kib("RssAnon"))


def memory_kib(name: str) -> int:
    """Return a figure of the kernel about the memory of this process, in KiB; name: as in /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure(asked: Asked, scratch: Path, *, say: Callable[[str], None] = lambda _: None) -> Found:
    """Run all three, one after the other. Raises PipelineError."""
    say("a few images ...")
    few = asked.run(scratch / "few", NO_LIMIT, few=FEW)
    say("all, in memory ...")
    costs = {"in memory": asked.run(scratch / "memory", NO_LIMIT)}
    results = read_json(scratch / "memory" / RESULTS_FILE)
    size = 4.0 * results["features"][0]["dim"] * sum(results["dataset"][f"n_{split}"] for split in SPLITS)
    say(f"{costs['in memory'].seconds:.0f} s; all, from a file ...")
    costs["from a file"] = asked.run(scratch / "file", BUDGET * size)
    again = read_json(scratch / "file" / RESULTS_FILE)
    heads = results["heads"]
    return Found(
        size,
        few,
        costs,
        sum(head["grid_size"] for head in heads),
        {head["name"]: head["test"]["accuracy"] for head in heads},
        [each["said"] for each in results["failed"]],
        lasting(heads) == lasting(again["heads"]),
    )


def lasting(values: Any) -> Any:
    """Numbers of a results.json without those that pass: seconds."""
    if isinstance(values, dict):
        return {key: lasting(value) for key, value in values.items() if key not in PASSING}
    return [lasting(value) for value in values] if isinstance(values, list) else values


def text_of(found: Found) -> str:
    """Return the table of costs, and the accuracies of the heads."""
    rows = [
        (name, f"{cost.seconds:.0f}", f"{cost.process / 1e6:,.0f}", f"{found.own(name) / 1e6:,.0f}",
         f"{found.own(name) / found.features:.2f}", f"{WANTED[name]}")
        for name, cost in found.costs.items()
    ]  # fmt: skip
    headers = ("features", "s", "process MB", "own MB", "own / features", "wanted")
    best = ", ".join(f"{name} {100 * accuracy:.2f}" for name, accuracy in found.best.items())
    title = (
        f"{found.n_settings} settings on features of {found.features / 1e6:,.0f} MB; of the libraries "
        f"{found.few.left / 1e6:,.0f} MB are anonymous"
    )
    verdict = f"both tables are {'the same' if found.same else 'NOT the same'}"
    results = "\n".join([f"test %: {best}", *found.failed, verdict])
    return f"{title}\n\n{table(rows, headers, right=range(1, 6))}\n\n{results}"


@dataclass(frozen=True)
class ClassifyBench:
    """Which images, features and heads."""

    images: Path = option(
        "--images",
        metavar="DIR",
        type=PATH,
        default=Path("data/fashion-mnist"),
        show_default=True,
        help="labelled images",
    )
    backbone: str = option(
        "--backbone", metavar="NAME", default=DEFAULT_BACKBONE, show_default=True, help="the network"
    )
    layer: str | None = option("--layer", metavar="LAYER", help="of the network, as for classify")
    heads: Sequence[str] = option("--heads", metavar="A,B", multiple=True, help="as for classify (default: all)")


@click.command(cls=BenchCommand, examples=["featurecache bench classify --images data/fashion-mnist"])
@takes(ClassifyBench, CacheOption, Output)
def command(asked: ClassifyBench, cache: CacheOption, output: Output) -> int:
    """Measure seconds and memory of classify.

    Once with the features in memory and once with the features in a file.
    """
    from featurecache.classify.heads.table import parse_heads

    if not Path("/proc/self/status").exists():
        raise PipelineError("This system has no /proc to read the memory of a process from: measure on Linux.")
    request = FeatureRequest(asked.backbone, layer=asked.layer)
    wanted = Asked(asked.images, cache.cache, request, tuple(parse_heads(",".join(asked.heads or ["all"]))))
    # Beside the cache: where files in the usual place are kept in memory, features would be there after all.
    parent = cache.cache.resolve().parent
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=parent if parent.is_dir() else None) as folder:
        found = measure(wanted, Path(folder), say=say)
    output.show(text_of(found), found.to_dict())
    return DONE if found.same else FAILED
