"""The record of a finished run: results.json and predictions.parquet as arrays.

N test images, C classes; classes are codes 0..C-1 into `classes`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import PipelineError
from featurecache.runs.documents import Config, HeadRow, Results
from featurecache.runs.folder import CONFIG_FILE, PREDICTIONS_FILE, RESULTS_FILE
from featurecache.runs.head_choice import choose_head, features_of, head_titles, metric_of
from featurecache.runs.predictions_file import check_texts, listed_numbers, open_predictions
from featurecache.runs.record_checks import need, need_each, read_config, read_results

if TYPE_CHECKING:
    import pyarrow
    from numpy.typing import NDArray

# Rows of probabilities that are in memory at a time: at 1,000 classes 32 MB.
BATCH_ROWS = 8192
# Keys that the page reads of the parts of results.json, and that every version has written.
NEEDED = ("created", "versions", "features", "dataset.name", "dataset.classes", "dataset.n_train", "dataset.n_val",
          "dataset.n_test", "dataset.skipped")  # fmt: skip
NEEDED_OF_CONFIG = ("images", "requests", "heads", "cache")
NEEDED_OF_EACH = {
    "features": ("backbone", "dim", "weights", "key"),
    "heads": ("params", "tied_with_best", "test.accuracy", "test.accuracy_ci"),
}


@dataclass(frozen=True)
class Answers:
    """The predictions of one head for the N test images.

    predicted: (N,) codes; confidence: (N,) the probability of `predicted`; doubt: (N,) one minus that of the label.
    """

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    doubt: NDArray[np.float32]


@dataclass(frozen=True)
class Record:
    """A run: results.json as it is, and its test images with the answers of every head, in the order of the results.

    names, digests: of the N test images; y: (N,) their codes; answers: empty where there is no predictions.parquet.
    """

    results: Results
    config: Config
    classes: list[str]
    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    y: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    answers: tuple[Answers, ...] = ()

    @property
    def heads(self) -> list[HeadRow]:
        """The heads of results.json, best first."""
        return self.results["heads"]

    @property
    def titles(self) -> list[str]:
        """The title of each head: its name, behind its features where these are several."""
        return head_titles([(features_of(head), head["name"]) for head in self.heads])

    @property
    def chosen(self) -> int:
        """The place of the head that `predict` takes: the best on val."""
        return self.heads.index(choose_head(self.heads, None, metric=metric_of(self.results)))


def read_record(folder: Path) -> Record:
    """Read a run folder. Raises UsageError where it is none, PipelineError where it is damaged."""
    results = read_results(folder)
    need(folder / RESULTS_FILE, results, NEEDED)
    for listed, names in NEEDED_OF_EACH.items():
        need_each(folder / RESULTS_FILE, results, listed, names)
    config = read_config(folder) if os.path.lexists(folder / CONFIG_FILE) else results.get("config", {})
    need(folder / CONFIG_FILE, config, NEEDED_OF_CONFIG)
    record = Record(results, config, results["dataset"]["classes"])
    path = folder / PREDICTIONS_FILE
    if not os.path.lexists(path):
        return record
    try:
        return _with_predictions(folder, record)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise PipelineError(
            f"'{path}' is not what 'featurecache classify' writes: {error}. Delete it for a report without it."
        ) from error


def _with_predictions(folder: Path, record: Record) -> Record:
    with open_predictions(folder) as file:
        columns = [name for name in file.schema_arrow.names if name != "probabilities"]
        table = file.read(columns=columns)
        check_texts(table)
        labels, predicted = (_codes(table[name], record.classes) for name in ("label", "predicted"))
        confidence, doubt = _probabilities(file, labels, predicted, len(record.classes))
    rows = _rows_of_heads(table, record.heads)
    paths, digests = ([texts[i] for i in rows[0]] for texts in (table[name].to_pylist() for name in ("path", "digest")))
    for own in rows:
        if not np.array_equal(labels[own], labels[rows[0]]):
            raise ValueError("its heads were not tested on the same images")
    return Record(
        record.results,
        record.config,
        record.classes,
        names=paths,
        digests=digests,
        y=labels[rows[0]],
        answers=tuple(Answers(predicted[own], confidence[own], doubt[own]) for own in rows),
    )


def _codes(column: pyarrow.ChunkedArray, classes: list[str]) -> NDArray[np.int64]:
    code_of = {name: code for code, name in reversed(list(enumerate(classes)))}
    codes = np.array([code_of.get(text, -1) for text in column.to_pylist()], dtype=np.int64)
    if (codes < 0).any():
        raise ValueError("it names a class that results.json does not have")
    return codes


def _probabilities(
    file: pyarrow.parquet.ParquetFile, labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The probability of what was predicted, and one minus that of the label, row by row of the file."""
    confidence, of_label = np.empty(len(labels), np.float32), np.empty(len(labels), np.float32)
    start = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=["probabilities"]):
        proba = listed_numbers(batch.column(0)).reshape(len(batch), n_classes)
        rows, span = np.arange(len(batch)), slice(start, start + len(batch))
        confidence[span], of_label[span] = proba[rows, predicted[span]], proba[rows, labels[span]]
        start += len(batch)
    return confidence, 1 - of_label


def _rows_of_heads(table: pyarrow.Table, heads: list[HeadRow]) -> list[NDArray[np.int64]]:
    columns = ("features" if "features" in table.column_names else "backbone", "head")
    features, names = (np.array(table[name].to_pylist(), dtype=object) for name in columns)
    rows = [np.flatnonzero((features == features_of(head)) & (names == head["name"])) for head in heads]
    if {len(own) for own in rows} != {len(rows[0])} or not len(rows[0]):
        raise ValueError("it does not hold the same number of images for every head of results.json")
    return rows
