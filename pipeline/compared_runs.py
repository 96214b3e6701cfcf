"""Run folders as `featurecache compare` reads them: heads, right answers, and which images are units."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.manifest import printable
from pipeline.rundir import RESULTS_FILE, read_json, reading_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = dict[str, Any]
METRICS = ("accuracy", "accuracy_ci", "balanced_accuracy", "macro_f1", "log_loss", "ece", "brier")
ITEM_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class Entry:
    """One head of one run."""

    row: Row
    """What the table says of it."""
    correct: NDArray[np.bool_]
    """Right answers on the run's test images in the order of their digests, (N,)."""

    @property
    def title(self) -> str:
        """What it is called among the heads of one test set."""
        return f"{self.row['run']}/{self.row['features']}/{self.row['head']}"


@dataclass(frozen=True)
class Run:
    """What a run folder says: its heads, and which images it was about."""

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
    """What the run itself says against its numbers."""


def read_run(folder: Path, name: str) -> Run:
    """Read what `classify` wrote. Raises UsageError where it is no run, PipelineError where it is damaged."""
    results = read_json(folder / RESULTS_FILE)
    with reading_run(folder):
        return _read_run(folder, name, results)


def _read_run(folder: Path, name: str, results: Row) -> Run:
    import pyarrow.parquet

    columns = ["features", "head", "digest", "label", "predicted"]
    predictions = pyarrow.parquet.read_table(folder / "predictions.parquet", columns=columns).to_pydict()
    with (folder / "splits.csv").open(newline="", encoding="utf-8") as file:
        images = [(row["digest"], row["label"], row.get("group") or None) for row in csv.DictReader(file)]
    answers = _answers(predictions)
    entries, test_key = [], ""
    test_images: list[tuple[str, str]] = []
    for head in results["heads"]:
        test_images, correct = answers[head["features"], head["name"]]
        test_key = _key(test_images)
        entries.append(Entry(_row(folder, name, results, head), correct))
    data = results["dataset"]
    return Run(
        name=name,
        data_set=printable(data["name"]),
        entries=entries,
        test_key=test_key,
        images_key=_key(sorted((digest, label) for digest, label, _ in images)),
        n_train=data["n_train"] + data["n_val"],
        n_test=data["n_test"],
        units=_units([digest for digest, _ in test_images], images),
        grouped=data.get("test_units") == "group",
        created=results["created"],
        doubts=_doubts_of(results),
    )


def _units(digests: Sequence[str], images: Sequence[tuple[str, str, str | None]]) -> NDArray[np.integer[Any]]:
    """The unit of each of some digests among all images (digest, label, group) of a run."""
    from classify.units import units_of

    of_all = np.frombuffer(bytes.fromhex("".join(digest for digest, _, _ in images)), dtype=np.uint8).reshape(-1, 32)
    units = units_of(of_all, [group for _, _, group in images])
    unit_of = {digest: int(unit) for (digest, _, _), unit in zip(images, units, strict=True)}
    return np.array([unit_of[digest] for digest in digests], dtype=np.int64)


def _doubts_of(results: Row) -> list[str]:
    doubts = [printable(warning) for warning in results.get("warnings", [])]
    if results.get("interrupted"):
        doubts.append("It was interrupted, and has only the heads and settings that were finished by then.")
    return doubts


def _key(images: Iterable[tuple[str, str]]) -> str:
    return sha256("\n".join(f"{digest} {label}" for digest, label in images).encode()).hexdigest()


def _answers(
    predictions: dict[str, list[str]],
) -> dict[tuple[str, str], tuple[list[tuple[str, str]], NDArray[np.bool_]]]:
    """{(features, head): ((digest, label) of its test images, sorted, and which it got right)}."""
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for features, head, digest, label, predicted in zip(*predictions.values(), strict=True):
        found.setdefault((features, head), []).append((digest, label, predicted))
    return {
        key: ([(d, label) for d, label, _ in sorted(rows)], np.array([x == label for _, label, x in sorted(rows)]))
        for key, rows in found.items()
    }


def _row(folder: Path, name: str, results: Row, head: Row) -> Row:
    data, test = results["dataset"], head["test"]
    n_images = data["n_train"] + data["n_val"] + data["n_test"]
    place = [each["name"] for each in results["features"]].index(head["features"])
    features, request = results["features"][place], results["config"]["requests"][place]
    rate = features["images_per_second"]
    head_seconds = 1000 * head["predict_seconds"] / data["n_test"]
    return {
        "data_set": printable(data["name"]),
        "run": name,
        "backbone": printable(head["backbone"]),
        "features": printable(head["features"]),
        "head": printable(head["name"]),
        "params": head["params"],
        **{metric: test[metric] for metric in METRICS},
        "extract_seconds": features["extract_seconds"],
        "fit_seconds": head["fit_seconds"],
        "predict_1000_seconds": round(head_seconds + (1000 / rate if rate else 0.0), 3),
        "head_bytes": sum(path.stat().st_size for path in (folder / head["saved"]).rglob("*") if path.is_file()),
        "features_bytes": n_images * features["dim"] * ITEM_BYTES[request["dtype"]],
    }
