"""Accuracy of fine-tunes on few images that start from the best head, against a random one.

    frozen    the head alone, on the features of the frozen network; fitted to train and val, as `classify` leaves it
    head      linear probe, then fine-tune: from that head (LP-FT, Kumar et al. 2022)
    random    the classic way: from a last layer of random numbers

Each seed draws its own training and val images; the test images are always the same. Both fine-tunes have the same
images, views, steps and seed, so their difference is paired; its interval, like those of the means, is about other
draws (Student's t over the seeds), and that of a mean about other test images, too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import click
import numpy as np

from featurecache.base.defaults import DEFAULT_BACKBONE
from featurecache.base.errors import PipelineError
from featurecache.base.exits import DONE
from featurecache.base.text import table
from featurecache.bench.finetune import DATASET, write_images
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.cli.console import Console
from featurecache.cli.declare import POSITIVE, option, takes
from featurecache.cli.options import PATH
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.images.read import read_images
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import Settings

if TYPE_CHECKING:
    from featurecache.evaluate.join import Labelled
    from featurecache.runs.documents import Results

N_TRAIN, N_SEEDS, N_EPOCHS = 500, 5, 10
# Of val, so many for each training image: enough to choose an epoch by.
VAL_SHARE = 0.4
WAYS = ("frozen", "head", "random")


@dataclass(frozen=True)
class Starts:
    """Test accuracies by way, one for each seed, on `n_test` images."""

    accuracies: dict[str, list[float]]
    n_train: int
    n_val: int
    n_test: int

    def gain(self) -> tuple[float, float, float]:
        """How much better the head is than the random start, and its 95 % interval over the seeds (Student's t)."""
        from scipy.stats import t

        differences = np.subtract(self.accuracies["head"], self.accuracies["random"])
        n = len(differences)
        half = t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        return float(differences.mean()), float(differences.mean() - half), float(differences.mean() + half)


@dataclass(frozen=True)
class Contest:
    """What all ways have in common."""

    request: FeatureRequest
    head: str
    n_train: int = N_TRAIN
    epochs: int = N_EPOCHS
    engine: str = "auto"

    @property
    def n_val(self) -> int:
        """Images to choose an epoch by."""
        return round(VAL_SHARE * self.n_train)

    def run(self, way: str, manifest: Manifest, folder: Path, seed: int) -> float:
        """The test accuracy of one run, as `classify` or `finetune` would do it, below `folder`."""
        with Console(quiet=True) as console:
            results = (
                self._classify(manifest, folder, console)
                if way == WAYS[0]
                else self._tune(way, manifest, folder, seed, console)
            )
        return float(results["heads"][0]["test"]["accuracy"])

    def _classify(self, manifest: Manifest, folder: Path, console: Console) -> Results:
        from featurecache.evaluate.classify import classify
        from featurecache.evaluate.classify_plan import ClassifyPlan
        from featurecache.extract.job.extract import extract_features
        from featurecache.report.page import report_on

        cache_root = folder.parent / "cache"
        extract_features(manifest, [self.request], cache_root, settings=Settings(self.engine))
        plan = ClassifyPlan((self.request,), (self.head,), cache_root, folder / WAYS[0])
        return classify(
            manifest, plan, console, report=lambda run: report_on(run, str(manifest.root), cache_root, console)
        )

    def _tune(self, way: str, manifest: Manifest, folder: Path, seed: int, console: Console) -> Results:
        from featurecache.finetune.finetune import finetune_images
        from featurecache.finetune.plan import FinetunePlan
        from featurecache.finetune.recipe import Recipe

        plan = FinetunePlan(
            source=folder / WAYS[0],
            cache_root=folder.parent / "cache",
            out=folder / way,
            recipe=Recipe(epochs=self.epochs, seed=seed),
            head="random" if way == "random" else None,
            augment="light",
            engine=self.engine,
        )
        return finetune_images(manifest, plan, console)[1]


def measure(
    images: Path,
    scratch: Path,
    contest: Contest,
    *,
    n_seeds: int = N_SEEDS,
    say: Callable[[str], None] = lambda _: None,
) -> Starts:
    """Every way once for each seed. Raises PipelineError, also where there are fewer images than asked for."""
    from featurecache.evaluate.join import label_samples

    with Memo(scratch / "cache") as memo:
        labelled = label_samples(read_images(str(images)), memo, seed=0)
    accuracies: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(n_seeds):
        folder = scratch / str(seed)
        manifest = _draw(labelled, contest.n_train, contest.n_val, seed, images)
        for way in WAYS:
            say(f"{way}, seed {seed + 1} of {n_seeds}")
            accuracies[way].append(contest.run(way, manifest, folder, seed))
    return Starts(accuracies, contest.n_train, contest.n_val, len(labelled.rows("test")))


def _draw(labelled: Labelled, n_train: int, n_val: int, seed: int, root: Path) -> Manifest:
    """The test images of the whole, and of the others `n_train` and `n_val`."""
    others = np.concatenate([labelled.rows("train"), labelled.rows("val")])
    if len(others) < n_train + n_val:
        raise PipelineError(
            f"There are {len(others):,} images besides the test images, too few for {n_train:,} of train and {n_val:,} "
            "of val: give fewer with --train."
        )
    drawn = np.random.default_rng(seed).permutation(others)
    parts = {"train": drawn[:n_train], "val": drawn[n_train : n_train + n_val], "test": labelled.rows("test")}
    samples = (replace(labelled.samples[i], split=split) for split, some in parts.items() for i in some)
    return Manifest(root, tuple(samples))


def text_of(starts: Starts) -> str:
    """The table, and the difference."""
    from featurecache.classify.evaluation.learning_curve import mean_interval

    rows = []
    for way, found in starts.accuracies.items():
        low, high = mean_interval(np.array(found), starts.n_test)
        each = " ".join(f"{100 * value:.2f}" for value in found)
        rows.append((way, f"{100 * mean(found):.2f}", f"{100 * low:.2f}-{100 * high:.2f}", each))
    sizes = f"{starts.n_train} training images, {starts.n_val} of val, {starts.n_test} of test"
    gain, low, high = (100 * value for value in starts.gain())
    return (
        f"{sizes}\n\n{table(rows, ('start', 'test %', '95 % interval', 'by seed'), right=(1, 2))}\n\n"
        f"head minus random: {gain:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    )


@dataclass(frozen=True)
class StartsBench:
    """Which network and head, on how many images."""

    images: Path | None = option("--images", metavar="DIR", type=PATH, help=f"labelled images (default: {DATASET})")
    backbone: str = option(
        "--backbone", metavar="NAME", default=DEFAULT_BACKBONE, show_default=True, help="the network"
    )
    head: str = option("--head", metavar="NAME", default="logistic", show_default=True, help="the head that starts it")
    size: int | None = option("--size", metavar="S", type=POSITIVE, help="side of the input in pixels")
    train: int = option("--train", metavar="N", type=POSITIVE, default=N_TRAIN, show_default=True, help="images")
    seeds: int = option("--seeds", metavar="N", type=POSITIVE, default=N_SEEDS, show_default=True, help="draws")
    epochs: int = option("--epochs", metavar="N", type=POSITIVE, default=N_EPOCHS, show_default=True, help="of each")


@click.command(cls=BenchCommand, examples=["featurecache bench starts --size 96"])
@takes(StartsBench, Output)
def command(asked: StartsBench, output: Output) -> int:
    """Measure fine-tuning from a trained and from a random head.

    On few images, where the start matters most.
    """
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder:
        contest = Contest(FeatureRequest(asked.backbone, size=asked.size), asked.head, asked.train, asked.epochs)
        images = asked.images or write_images(Path(folder))
        starts = measure(images, Path(folder), contest, n_seeds=asked.seeds, say=say)
    output.show(text_of(starts), asdict(starts))
    return DONE
