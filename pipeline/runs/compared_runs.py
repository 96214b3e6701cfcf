"""Run folders as `featurecache compare` reads them: heads, right answers, and which images are units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.text import printable
from featurecache.classify.evaluation.criteria import METRICS
from featurecache.extract.cache.inventory import files_bytes
from featurecache.extract.cache.spec import HEX_DIGEST
from featurecache.runs.comparison_document import EntryRow
from featurecache.runs.documents import HeadRow, Results
from featurecache.runs.folder import PREDICTIONS_FILE, RESULTS_FILE, SPLITS_FILE
from featurecache.runs.head_choice import interval_of, metric_of
from featurecache.runs.predictions_file import check_texts, open_predictions
from featurecache.runs.reading import reading_run
from featurecache.runs.record_checks import damaged, need, need_each, read_results, saved_folder
from featurecache.runs.split_list import ListedImage, read_splits

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet
    from numpy.typing import NDArray

NEEDED_METRICS = ("accuracy", "accuracy_ci", "balanced_accuracy", "macro_f1", "log_loss", "ece", "brier")
# Rows of probabilities that are in memory at a time: at 1,000 classes 32 MB.
BATCH_ROWS = 8192
ITEM_BYTES = {"float32": 4, "float16": 2}
# What the table reads of results.json, besides what every reader does.
NEEDED = ("created", "config.requests", "features", "dataset.name", "dataset.n_train", "dataset.n_val",
          "dataset.n_test")  # fmt: skip
NEEDED_OF_HEADS = (
    "features",
    "params",
    "saved",
    "fit_seconds",
    "predict_seconds",
    *(f"test.{m}" for m in NEEDED_METRICS),
)
# {(features, head): ((digest, label) of its N test images, what it said of them (N,), its losses (N,))}
Said = dict[tuple[str, str], "tuple[list[tuple[str, str]], NDArray[np.str_], NDArray[np.float64]]"]


@dataclass(frozen=True)
class Entry:
    """One head of one run."""

    row: EntryRow
    labels: NDArray[np.str_]
    """The classes of the run's test images in the order of their digests, (N,)."""
    predicted: NDArray[np.str_]
    """What the head said they are, (N,)."""
    losses: NDArray[np.float64]
    """-ln of the probability of their classes, (N,); zeros where runs are not compared by log loss."""

    @property
    def title(self) -> str:
        """The name of the head among those of one test set."""
        return f"{self.row['run']}/{self.row['features']}/{self.row['head']}"


@dataclass(frozen=True)
class Run:
    """A run folder: its heads, and its images."""

    name: str
    data_set: str
    entries: list[Entry]
    test_key: str
    """SHA-256 of the digests and labels of the test images."""
    images_key: str
    """SHA-256 of those of all images: runs that share it and not the test images are other splits of one data set."""
    n_train: int
    n_test: int
    units: NDArray[np.integer[Any]]
    """The unit of each test image in the order of their digests, (N,): copies and images of a group share one."""
    grouped: bool
    """Whether any test image has a group."""
    created: str
    """When it was written, as text that sorts by time."""
    doubts: list[str]
    """The warnings of the run about its own numbers."""
    metric: str
    """What it chose and ranked by."""


def read_run(folder: Path, name: str, *, with_losses: bool = False) -> Run:
    """Read what `classify` wrote, with probabilities where losses are asked for.

    Raises UsageError where it is no run, PipelineError where it is damaged.
    """
    path = folder / RESULTS_FILE
    results = read_results(folder)
    need(path, results, NEEDED)
    need_each(path, results, "heads", NEEDED_OF_HEADS)
    need_each(path, results, "features", ("name", "dim", "extract_seconds", "images_per_second"))
    with reading_run(folder):
        answers = _answers(*_read_predictions(folder, results["dataset"]["classes"] if with_losses else None))
        images = _read_images(folder)
    return _as_run(folder, name, results, answers, images)


def _read_predictions(folder: Path, classes: Sequence[str] | None) -> tuple[dict[str, list[str]], NDArray[np.float64]]:
    """The columns of predictions.parquet, and the loss of each row; 0 without the classes of the probabilities."""
    with open_predictions(folder) as file:
        table = file.read(columns=["features", "head", "digest", "label", "predicted"])
        check_texts(table)
        found: dict[str, list[str]] = table.to_pydict()
        losses = np.zeros(len(table))
        if classes is not None:
            code_of = {label: code for code, label in enumerate(classes)}
            losses = _losses(file, [code_of[label] for label in found["label"]], len(classes))
    return found, losses


def _losses(file: pyarrow.parquet.ParquetFile, codes: Sequence[int], n_classes: int) -> NDArray[np.float64]:
    """-ln of the probability of the class of every row, by its code (N,)."""
    from featurecache.classify.evaluation.metrics import log_losses

    found, start = np.empty(len(codes)), 0
    for batch in file.iter_batches(BATCH_ROWS, columns=["probabilities"]):
        proba = batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(len(batch), n_classes)
        span = slice(start, start + len(batch))
        found[span] = log_losses(np.asarray(codes[span]), proba.astype(np.float64))
        start += len(batch)
    return found


def _read_images(folder: Path) -> list[ListedImage]:
    """Every image of splits.csv. Raises ValueError for a digest that is none."""
    images = read_splits(folder)
    strange = next((each.digest for each in images if not HEX_DIGEST.fullmatch(each.digest)), None)
    if strange is not None:
        raise ValueError(f"{SPLITS_FILE} has the digest {strange[:40]!r}, which is no SHA-256")
    return images


def _as_run(folder: Path, name: str, results: Results, answers: Said, images: list[ListedImage]) -> Run:
    entries, test_key = [], ""
    test_images: list[tuple[str, str]] = []
    listed = {each.digest for each in images}
    for head in results["heads"]:
        if (head["features"], head["name"]) not in answers:
            raise damaged(folder / PREDICTIONS_FILE, f"it has no rows of the head '{printable(head['name'])}'")
        test_images, predicted, losses = answers[head["features"], head["name"]]
        test_key = _key(test_images)
        if not listed.issuperset(digest for digest, _ in test_images):
            raise damaged(folder / SPLITS_FILE, f"it lacks images that {PREDICTIONS_FILE} has")
        labels = np.array([label for _, label in test_images])
        entries.append(Entry(_row(folder, name, results, head), labels, predicted, losses))
    data = results["dataset"]
    return Run(
        name=name,
        data_set=printable(data["name"]),
        entries=entries,
        test_key=test_key,
        images_key=_key(sorted((each.digest, each.label) for each in images)),
        n_train=data["n_train"] + data["n_val"],
        n_test=data["n_test"],
        units=_units([digest for digest, _ in test_images], images),
        grouped=data.get("test_units") == "group",
        created=results["created"],
        doubts=_doubts_of(results),
        metric=metric_of(results),
    )


def _units(digests: Sequence[str], images: Sequence[ListedImage]) -> NDArray[np.integer[Any]]:
    """The unit of each of some digests among all images of a run."""
    from featurecache.classify.evaluation.units import units_of

    of_all = np.frombuffer(bytes.fromhex("".join(each.digest for each in images)), dtype=np.uint8).reshape(-1, 32)
    units = units_of(of_all, [each.group for each in images])
    unit_of = {each.digest: int(unit) for each, unit in zip(images, units, strict=True)}
    return np.array([unit_of[digest] for digest in digests], dtype=np.int64)


def _doubts_of(results: Results) -> list[str]:
    doubts = [printable(warning) for warning in results.get("warnings", [])]
    if results.get("interrupted"):
        doubts.append("It was interrupted, and has only the heads and settings that were finished by then.")
    return doubts


def _key(images: Iterable[tuple[str, str]]) -> str:
    return sha256("\n".join(f"{digest} {label}" for digest, label in images).encode()).hexdigest()


def _answers(predictions: dict[str, list[str]], losses: NDArray[np.float64]) -> Said:
    """What every head said about its test images, these in the order of digest and label."""
    found: dict[tuple[str, str], list[tuple[str, str, str, float]]] = {}
    for features, head, digest, label, predicted, loss in zip(*predictions.values(), losses.tolist(), strict=True):
        found.setdefault((features, head), []).append((digest, label, predicted, loss))
    return {
        key: (
            [row[:2] for row in ordered],
            np.array([row[2] for row in ordered]),
            np.array([row[3] for row in ordered]),
        )
        for key, ordered in ((key, sorted(rows)) for key, rows in found.items())
    }


def _row(folder: Path, name: str, results: Results, head: HeadRow) -> EntryRow:
    data, test = results["dataset"], head["test"]
    n_images = data["n_train"] + data["n_val"] + data["n_test"]
    names, requests = [each["name"] for each in results["features"]], results["config"]["requests"]
    if head["features"] not in (names if head.get("members") else names[: len(requests)]):
        raise damaged(folder / RESULTS_FILE, f"it does not say which features '{printable(head['features'])}' are")
    place = names.index(head["features"])
    features, request = results["features"][place], requests[place] if place < len(requests) else {}
    rate = features["images_per_second"]
    head_seconds = 1000 * head["predict_seconds"] / max(1, data["n_test"])
    return {
        "data_set": printable(data["name"]),
        "run": name,
        "backbone": printable(head["backbone"]),
        "features": printable(head["features"]),
        "head": printable(head["name"]),
        "params": head["params"],
        "accuracy": test["accuracy"],
        "accuracy_ci": test["accuracy_ci"],
        "balanced_accuracy": test["balanced_accuracy"],
        "macro_f1": test["macro_f1"],
        "log_loss": test["log_loss"],
        "ece": test["ece"],
        "brier": test["brier"],
        "ci": {metric: interval_of(test, metric) for metric in METRICS},
        "extract_seconds": features["extract_seconds"],
        "fit_seconds": head["fit_seconds"],
        "predict_1000_seconds": round(head_seconds + (1000 / rate if rate else 0.0), 3),
        "head_bytes": files_bytes(saved_folder(folder, head).rglob("*")),
        "features_bytes": n_images * features["dim"] * ITEM_BYTES[request.get("dtype", "float32")],
    }
