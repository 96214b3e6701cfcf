"""Options that several commands share; an option is a field of one of these classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from featurecache.base.defaults import DEFAULT_BACKBONE, DEFAULT_CACHE, DEFAULT_LAYER
from featurecache.base.described import option_name
from featurecache.base.errors import UsageError
from featurecache.base.quoting import as_command
from featurecache.base.text import printable
from featurecache.classify.evaluation.criteria import METRICS
from featurecache.classify.heads.table import CLASS_WEIGHTS
from featurecache.cli.declare import POSITIVE, SEED, Bytes, Counts, Whole, argument, every_field_of, option
from featurecache.extract.backbones.libraries.own_network import permit
from featurecache.extract.engines.protocol import ALL_GPUS, DEVICES, ENGINES, no_device
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.images.read import is_table, read_images
from featurecache.extract.images.read_options import MANIFEST, ReadOptions
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import ON_ERROR, OnError, Settings
from featurecache.runs.command_lines import image_words

IMAGES_HELP = (
    "a folder of class folders (train/ val/ test/ above or below them if you like), or a .csv, .tsv, .txt or .parquet "
    "table; classify and audit also take vectors: .npz, .h5, .csv, .parquet, or a folder of .h5"
)
PATH = click.Path(path_type=Path)
READING, FEATURES, EXTRACTION, HEADS = "Reading of images", "Features", "Extraction", "Heads"


def dry_run_option() -> Any:
    """Return the field of the option by which a command only shows how its images are read."""
    return option(
        "--dry-run", is_flag=True, default=False, group=READING,
        help="only show how the images are read: classes, splits, groups, and files left out",
    )  # fmt: skip


@dataclass(frozen=True)
class ReadingOptions:
    """How images are read: an option for every described field of ReadOptions."""

    reading: Mapping[str, Any] = every_field_of(ReadOptions, group=READING)

    def options(self) -> ReadOptions:
        """Return them as `read_images` takes them. Raises RequestError."""
        return ReadOptions(**self.reading)


@dataclass(frozen=True)
class Images(ReadingOptions):
    """The images of a command, and how they are read."""

    images: str = argument("IMAGES", IMAGES_HELP)
    dry_run: bool = dry_run_option()

    def read(self, cache_root: Path | None = None, *, may_be_vectors: bool = False) -> Manifest:
        """Read them; cache_root: the folder of the caches, where nothing is written without. Raises ManifestError.

        may_be_vectors: whether the command works on vectors too; where not, a table of both is one of images.
        """
        options = self.options()
        if may_be_vectors:
            return read_images(self.images, options, cache_root=cache_root)
        from featurecache.extract.images.vectors.opening import holds_vectors

        is_both = options.as_ is None and is_table(self.images) and holds_vectors(self.images, options)
        options = replace(options, as_=MANIFEST) if is_both else options
        found = read_images(self.images, options, cache_root=cache_root)
        if found.vectors is not None:
            command = as_command(["featurecache", "classify", *image_words(printable(self.images), self.options())])
            raise UsageError(
                f"'{printable(self.images)}' holds vectors, and this command needs images. Heads are trained on "
                f"vectors by: {command}"
            )
        return found


@dataclass(frozen=True)
class FeatureOptions:
    """Which features: an option for every described field of FeatureRequest."""

    asked: Mapping[str, Any] = every_field_of(FeatureRequest, group=FEATURES)

    def requests_for(self, images: Manifest) -> tuple[FeatureRequest, ...]:
        """Return the kinds of features that are named for a data set; none for vectors. Raises UsageError."""
        if images.vectors is None:
            return self.requests()
        usual = FeatureRequest()
        given = [name for name, value in self.asked.items() if value and value != getattr(usual, name)]
        if given:
            raise UsageError(
                f"'{printable(images.source)}' holds vectors, and {option_name(given[0])} is about images: leave it "
                "out."
            )
        return ()

    def requests(self) -> tuple[FeatureRequest, ...]:
        """Return the kinds of features that are named."""
        backbones = names_in("--backbone", self.asked["backbone"] or [DEFAULT_BACKBONE])
        permit(part for name in backbones for part in name.split("+"))
        layers = names_in("--layer", self.asked["layer"] or [DEFAULT_LAYER])
        named = [(name, None if layer == DEFAULT_LAYER else layer) for name in backbones for layer in layers]
        return tuple(FeatureRequest(**{**self.asked, "backbone": name, "layer": layer}) for name, layer in named)


class Device(click.ParamType[str]):
    """The name of a device."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it."""
        if wrong := no_device(value):
            self.fail(wrong, param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so."""
        return [CompletionItem(name) for name in (*DEVICES, ALL_GPUS) if name.startswith(incomplete)]


@dataclass(frozen=True)
class NetworkEngineOptions:
    """What runs a network."""

    engine: str = option(
        "--engine", type=click.Choice(ENGINES), default=ENGINES[0], group=EXTRACTION,
        help="what runs the network (default: the faster one, measured once per network)",
    )  # fmt: skip
    device: str = option(
        "--device",
        type=Device(),
        metavar=f"{'|'.join(DEVICES)}|cuda:N|{ALL_GPUS}",
        default=DEVICES[0],
        group=EXTRACTION,
        help="where the network runs: cuda is one GPU, cuda:1 the second, cuda:all every one (default: a GPU if there "
        "is one)",
    )
    batch_size: int | None = option(
        "--batch-size", metavar="N", type=POSITIVE, group=EXTRACTION,
        help="images per forward pass (default: by device)",
    )  # fmt: skip


@dataclass(frozen=True)
class EngineOptions(NetworkEngineOptions):
    """How features are extracted."""

    on_error: OnError = option(
        "--on-error", type=click.Choice(ON_ERROR), default=ON_ERROR[0], group=EXTRACTION, show_default=True,
        help="skip: list images that cannot be used and go on; fail: stop at the first",
    )  # fmt: skip
    max_pixels: int = option(
        "--max-pixels", metavar="N", type=POSITIVE, default=MAX_PIXELS, group=EXTRACTION, show_default=True,
        help="refuse larger images, against decompression bombs",
    )  # fmt: skip
    retry_refused: bool = option(
        "--retry-refused", is_flag=True, default=False, group=EXTRACTION,
        help="decode again the images that an earlier run with the same libraries and limit refused",
    )  # fmt: skip
    refresh: bool = option(
        "--refresh", is_flag=True, default=False, group=EXTRACTION,
        help="ask the hub for the newest commit of backbones from there (default: the commit that was used first)",
    )  # fmt: skip

    def settings(self) -> Settings:
        """Return them as extraction takes them."""
        return Settings(**vars(self))


@dataclass(frozen=True)
class SplitOptions:
    """How images are split where they do not say it themselves."""

    seed: int = option(
        "--seed",
        metavar="N",
        type=SEED,
        default=0,
        show_default=True,
        help="seed of all random numbers, and of the split of images that have none",
    )
    min_per_class: int = option(
        "--min-per-class", metavar="N", type=POSITIVE, default=1, show_default=True,
        help="leave out, and list, classes with fewer images; copies and members of a group count once",
    )  # fmt: skip


@dataclass(frozen=True)
class HeadOptions:
    """Which heads, and how their settings are chosen."""

    heads: Sequence[str] = option(
        "--heads", metavar="A,B,C", multiple=True, group=HEADS,
        help="names from 'featurecache heads', or scikit-learn classifiers by dotted path (default: all); repeatable",
    )  # fmt: skip
    param: Sequence[str] = option(
        "--param", metavar="HEAD.NAME=V,V", multiple=True, group=HEADS,
        help="values of a parameter of a head in place of those that are tried, such as logistic.C=0.1,1,10; one value "
        "fixes it; repeat it for several parameters",
    )  # fmt: skip
    out: Path | None = option(
        "--out", metavar="DIR", type=PATH, group=HEADS,
        help="the run folder; an earlier run in it is replaced (default: data/runs/<data set>-<time>)",
    )  # fmt: skip
    folds: int | None = option(
        "--folds", metavar="K", type=Whole(2), group=HEADS,
        help="choose by K-fold cross-validation instead of val",
    )  # fmt: skip
    metric: str = option(
        "--metric", type=click.Choice(METRICS), default=METRICS[0], group=HEADS, show_default=True,
        help="what settings are chosen by on val, and heads are ranked, tested and tied by on test",
    )  # fmt: skip
    class_weight: str = option(
        "--class-weight", type=click.Choice(CLASS_WEIGHTS), default=CLASS_WEIGHTS[0], group=HEADS, show_default=True,
        help="balanced: all classes weigh the same in training, however many images each has",
    )  # fmt: skip
    calibrate: bool = option(
        "--calibrate", is_flag=True, default=False, group=HEADS,
        help="fit a temperature for every head's probabilities on val; labels stay, the effect on test is shown",
    )  # fmt: skip
    ensemble: bool = option(
        "--ensemble", is_flag=True, default=False, group=HEADS,
        help="add the mean probability of the heads that are tied with the best on val, as one more head",
    )  # fmt: skip
    shots: tuple[int, ...] = option(
        "--shots",
        metavar="1,2,4",
        type=Counts(),
        default=(),
        group=HEADS,
        help="numbers of labels per class to train with as well, for a learning curve",
    )
    repeats: int = option(
        "--repeats", metavar="N", type=POSITIVE, default=5, group=HEADS, show_default=True,
        help="random draws of labels for each number of --shots",
    )  # fmt: skip
    memory: float | None = option(
        "--memory", metavar="GB", type=Bytes(), group=HEADS,
        help="keep features larger than this in a temporary file next to the run and read them in blocks, like large "
        "arrays of heads (default: half of the machine's memory)",
    )  # fmt: skip

    def names(self) -> tuple[str, ...]:
        """Return the names of the heads. Raises UnknownHead."""
        from featurecache.classify.heads.table import parse_heads

        return tuple(parse_heads(",".join(self.heads or ["all"])))

    def params(self) -> dict[str, dict[str, list[Any]]]:
        """Return the values of parameters that are given for the grids of the heads. Raises UnknownHead, BadSetting."""
        from featurecache.classify.selection.settings import build_grids, parse_settings

        given = parse_settings(self.param)
        build_grids(self.names(), given, self.class_weight)
        return given


@dataclass(frozen=True)
class CacheOption:
    """Where features are kept."""

    cache: Path = option(
        "--cache", metavar="DIR", type=PATH, default=DEFAULT_CACHE, show_default=True, help="where features are kept"
    )


@dataclass(frozen=True)
class RunCacheOption:
    """Where features are kept, for commands that begin with a run."""

    cache: Path | None = option(
        "--cache", metavar="DIR", type=PATH, help="where features are kept (default: the run's cache)"
    )


def names_in(name: str, texts: Sequence[str]) -> list[str]:
    """Return the names in a repeated option, each of which may hold several with commas between them."""
    names = list(dict.fromkeys(name for text in texts for name in text.split(",") if name))
    if not names:
        raise UsageError(f"{name} is empty. Give it a name, or leave it out for the default.")
    return names
