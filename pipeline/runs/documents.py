"""The JSON documents of a run as types: results.json and config.json.

Fields that are `NotRequired` are missing in runs of some version, or in runs that were not asked for them. In a run of
somebody else any may be missing: a reader names those that it needs (`record_checks.need`). Numbers that are not finite
are null.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

if TYPE_CHECKING:
    from featurecache.classify.evaluation.comparison import PairRow, TestMetrics
    from featurecache.classify.evaluation.metrics import ClassRow
    from featurecache.extract.images.left_out import LeftOutRow

from featurecache.extract.cache.spec import folder_name


class Config(TypedDict):
    """config.json: what was asked for.

    images: as the user named them; images_at: the same from anywhere. reading: the options by which they were read.
    """

    images: str
    images_at: NotRequired[str]
    reading: NotRequired[dict[str, Any]]
    requests: list[dict[str, Any]]
    heads: list[str]
    params: NotRequired[dict[str, dict[str, Any]]]
    cache: str
    seed: int
    folds: int | None
    memory: NotRequired[float | None]
    shots: NotRequired[list[int]]
    repeats: NotRequired[int]
    calibrate: NotRequired[bool]
    min_per_class: NotRequired[int]
    metric: NotRequired[str]
    class_weight: NotRequired[str]
    ensemble: NotRequired[bool]


class FilesDocument(TypedDict):
    """Every file of a data set: how many there are, are used, and are left out by reason and suffix.

    n_missed: files and folders that are not used and that somebody would miss. folders: how many by reason.
    vanished_classes: those that have files and no image that is used. noun: "row" where the samples are rows of a file.
    """

    n_files: int
    n_used: int
    n_missed: int
    by_reason: list[LeftOutRow]
    folders: dict[str, int]
    vanished_classes: list[str]
    noun: NotRequired[str]


LeftOut = TypedDict("LeftOut", {"class": str, "n_images": int})


class TestUnits(TypedDict):
    """Test images and their units: groups and copies count once. test_units: "group" where there are groups."""

    n_test: int
    n_test_units: NotRequired[int]
    test_units: NotRequired[str]


class Dataset(TestUnits):
    """The images of a run."""

    name: str
    classes: list[str]
    n_train: int
    n_val: int
    skipped: int
    left_out: NotRequired[list[LeftOut]]
    files: NotRequired[FilesDocument]


class PartRow(TypedDict):
    """One of the features that are joined; scale: what its numbers are divided by."""

    backbone: str
    key: str
    scale: float


class FeatureRow(TypedDict):
    """One set of features, and what it cost; parts: of those that are joined."""

    name: NotRequired[str]
    backbone: str
    layer: NotRequired[str]
    pooling: NotRequired[str]
    key: str
    dim: int
    weights: str
    extract_seconds: float
    images_per_second: float
    parts: NotRequired[list[PartRow]]
    about: NotRequired[dict[str, str]]


class Trial(TypedDict):
    """One setting of a head on val."""

    params: dict[str, Any]
    val_accuracy: float
    val_log_loss: float
    val_balanced_accuracy: NotRequired[float]
    val_macro_f1: NotRequired[float]
    converged: bool
    seconds: float


class Tempering(TypedDict):
    """The effect of a temperature on test."""

    temperature: float
    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float


class HeadRow(TypedDict):
    """One head: its chosen setting, its metrics, and the folder in the run where it is saved.

    members: of an ensemble, the heads whose mean it is, as `features--name`. promoted: in a version of a model, whether
    it is the head that was promoted, and not a member of it.
    """

    name: str
    backbone: str
    features: str
    params: dict[str, Any]
    grid_size: int
    fit_seconds: float
    predict_seconds: float
    val: dict[str, float]
    test: TestMetrics
    by_class: NotRequired[list[ClassRow]]
    rank: NotRequired[int]
    p_vs_best: float
    tied_with_best: bool
    tempering: NotRequired[Tempering | None]
    saved: str
    members: NotRequired[list[str]]
    grid: NotRequired[list[Trial]]
    notes: NotRequired[list[str]]
    promoted: NotRequired[bool]


class Failure(TypedDict):
    """A head that could not be trained; said: why, in a sentence."""

    features: str
    head: str
    said: str


class ShotsRow(TypedDict):
    """Test accuracy of a head with `shots` labels a class, over several draws; the last of a head has all labels."""

    features: str
    head: str
    shots: float
    n_train: int
    n_chosen: NotRequired[int]
    repeats: int
    mean: float
    low: float
    high: float


class DoublingRow(TypedDict):
    """The accuracy that is expected of a head with twice the labels, with its interval."""

    features: str
    head: str
    n_now: int
    n_doubled: float
    now: float
    expected: float
    low: float
    high: float
    gain: float


class FewLabels(TypedDict, total=False):
    """The rows that few labels add to results.json."""

    shots: list[ShotsRow]
    doubling: list[DoublingRow]


# "from" is the folder of the run that the training started from.
FinetuneRow = TypedDict(
    "FinetuneRow",
    {
        "identity": NotRequired[str],
        "from": str,
        "head": str,
        "unfreeze": str,
        "split": NotRequired[str | None],
        "size": int,
        "augment": str,
        "views": NotRequired[int],
        "dtype": NotRequired[str | None],
        "recipe": dict[str, Any],
        "epochs": NotRequired[list[dict[str, Any]]],
        "seconds": NotRequired[float],
    },
)


# What a version of a model is from: the folder of the run, its head as `features--name`, and when.
PromotedRow = TypedDict("PromotedRow", {"from": str, "head": str, "at": str})


class Results(TypedDict):
    """results.json; heads: the best on test by the metric of the run first. promoted: in a version of a model."""

    format: int
    created: str
    config: Config
    versions: dict[str, str | None]
    dataset: Dataset
    features: list[FeatureRow]
    heads: list[HeadRow]
    pairs: NotRequired[list[PairRow]]
    transfer: NotRequired[list[str]]
    warnings: NotRequired[list[str]]
    failed: NotRequired[list[Failure]]
    interrupted: NotRequired[bool]
    shots: NotRequired[list[ShotsRow]]
    doubling: NotRequired[list[DoublingRow]]
    finetune: NotRequired[FinetuneRow]
    promoted: NotRequired[PromotedRow]


def cache_folder(features: FeatureRow | PartRow) -> str:
    """Return the name of the cache folder that holds the features."""
    return folder_name(features["backbone"], features["key"])


def cache_folders(rows: Iterable[FeatureRow]) -> list[str]:
    """Return the names of all cache folders that hold features; those of a run need not have a key."""
    found = list[str]()
    for row in rows:
        parts = row.get("parts")
        found += map(cache_folder, parts) if parts else [cache_folder(row)] if row.get("key") else []
    return found


def split_sizes(dataset: Dataset) -> dict[str, int]:
    """Return {split: its number of images}."""
    return {"train": dataset["n_train"], "val": dataset["n_val"], "test": dataset["n_test"]}
