"""Several runs side by side: heads, backbones and data sets in one comparison, paired where the test images are shared.

Heads that were tested on the same images under the same labels, in whatever run, are paired: McNemar's exact test for
all pairs, Holm's correction. Runs that split the same images in different ways (seeds) are joined by the corrected
resampled t-test. Over different data sets there is no test, only the mean rank (Demsar 2006); other splits of the same
images are no other data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.manifest import printable
from pipeline.errors import UsageError
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
    created: str
    """When it was written, as text that sorts by time."""
    doubts: list[str]
    """What the run itself says against its numbers."""


def compare(folders: Sequence[Path]) -> Row:
    """Return {"runs", "heads", "pairs", "over_splits", "mean_ranks", "notes"} of run folders, ready for JSON.

    Raises UsageError for a folder that is no run or is named twice, PipelineError for a damaged one.
    """
    _check_folders(folders)
    runs = [read_run(folder, name) for folder, name in zip(folders, _run_names(folders), strict=True)]
    rows: list[Row] = []
    pairs: list[Row] = []
    for number, group in enumerate(_by(runs, "test_key"), start=1):
        found, tested = _compare_paired([entry for run in group for entry in run.entries], number)
        rows += found
        pairs += tested
    return {
        "runs": [{"run": run.name, "data_set": run.data_set, "test_key": run.test_key} for run in runs],
        "heads": rows,
        "pairs": pairs,
        "over_splits": [row for group in _by(runs, "images_key") for row in _over_splits(group)],
        "mean_ranks": _mean_ranks(runs),
        "notes": [*_doubts(runs), *_unpaired(runs), *_unjoined(runs), *_repeated(runs)],
    }


def _check_folders(folders: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if place in seen:
            raise UsageError(
                f"'{printable(folder)}' and '{printable(seen[place])}' are the same run: name every run once."
            )
        seen[place] = folder


def _run_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path where two runs would have the same name."""
    last = [printable(folder.resolve().name) for folder in folders]
    return [name if last.count(name) == 1 else printable(folder) for name, folder in zip(last, folders, strict=True)]


def _by(runs: Iterable[Run], key: str) -> list[list[Run]]:
    """Runs that have the same key, in the order of their first."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(getattr(run, key), []).append(run)
    return list(groups.values())


def read_run(folder: Path, name: str) -> Run:
    """Read what `classify` wrote. Raises UsageError where it is no run, PipelineError where it is damaged."""
    results = read_json(folder / RESULTS_FILE)
    with reading_run(folder):
        return _read_run(folder, name, results)


def _read_run(folder: Path, name: str, results: Row) -> Run:
    import csv

    import pyarrow.parquet

    columns = ["features", "head", "digest", "label", "predicted"]
    predictions = pyarrow.parquet.read_table(folder / "predictions.parquet", columns=columns).to_pydict()
    with (folder / "splits.csv").open(newline="", encoding="utf-8") as file:
        images = [(row["digest"], row["label"]) for row in csv.DictReader(file)]
    answers = _answers(predictions)
    entries, test_key = [], ""
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
        images_key=_key(sorted(images)),
        n_train=data["n_train"] + data["n_val"],
        n_test=data["n_test"],
        created=results["created"],
        doubts=_doubts_of(results),
    )


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


def _compare_paired(entries: Sequence[Entry], number: int) -> tuple[list[Row], list[Row]]:
    """Rank the heads of one test set, best first; their rows, and the test of every pair."""
    from classify.statistics import compare_pairs, compare_with_best, ranks

    correct = {entry.title: entry.correct for entry in sorted(entries, key=_best_first)}
    tests = compare_pairs(correct)
    rank, against_best = ranks(list(correct), tests), compare_with_best(correct)
    rows = []
    for entry in sorted(entries, key=_best_first):
        p_value, tied = against_best[entry.title]
        placed = {"rank": rank[entry.title], "p_vs_best": p_value, "tied_with_best": tied}
        rows.append({"test_set": number, **entry.row, **placed})
    pairs = [{"test_set": number, "a": t.a, "b": t.b, "p": t.p, "p_holm": t.p_holm, "better": t.better} for t in tests]
    return rows, pairs


def _best_first(entry: Entry) -> tuple[float, float]:
    return -entry.row["accuracy"], entry.row["log_loss"]


def _over_splits(runs: Sequence[Run]) -> list[Row]:
    """Join runs on different splits of the same images: mean accuracy with its interval, and which heads are tied."""
    from classify.statistics import SIGNIFICANCE, holm, mean_difference

    splits, accuracy = _by(runs, "test_key"), _by_head(runs)
    if len(splits) < 2:
        return []
    names = list(accuracy)
    sizes = {
        "n_train": float(np.mean([group[0].n_train for group in splits])),
        "n_test": float(np.mean([group[0].n_test for group in splits])),
    }
    names.sort(key=lambda name: -float(accuracy[name].mean()))
    pairs = list(combinations(names, 2))
    adjusted = holm([mean_difference(accuracy[a] - accuracy[b], **sizes)[3] for a, b in pairs])
    p_of = dict(zip(pairs, adjusted, strict=True))
    rows = []
    for name in names:
        mean, low, high, _ = mean_difference(accuracy[name], **sizes)
        p = p_of.get((names[0], name), 1.0)
        rows.append({
            "data_set": runs[0].data_set, "features": name[0], "head": name[1], "n_splits": len(splits),
            "accuracy": mean, "accuracy_ci": [max(0.0, low), min(1.0, high)], "p_vs_best": p,
            "tied_with_best": p > SIGNIFICANCE,
        })  # fmt: skip
    return rows


def _by_head(runs: Sequence[Run]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """{(features, head): its accuracy on each of J splits, (J,)} for the heads that all splits have.

    The heads of a split may stand in several runs; where a head stands in more than one of them, the newest counts.
    """
    splits = [
        {_what(entry): entry.row["accuracy"] for run in sorted(group, key=_age) for entry in run.entries}
        for group in _by(runs, "test_key")
    ]
    common = [name for name in splits[0] if all(name in split for split in splits)]
    return {name: np.array([split[name] for split in splits]) for name in common}


def _what(entry: Entry) -> tuple[str, str]:
    return entry.row["features"], entry.row["head"]


def _age(run: Run) -> str:
    return run.created


def _mean_ranks(runs: Sequence[Run]) -> list[Row]:
    """The mean, over data sets, of the rank by accuracy among the heads that all of them have; equals share ranks.

    The accuracy on a data set is the mean over its splits.
    """
    from scipy.stats import rankdata

    sets = [_by_head(group) for group in _data_sets(runs)]
    common = [name for name in sets[0] if all(name in found for found in sets)]
    if len(sets) < 2 or len(common) < 2:
        return []
    table = np.mean([rankdata([-found[name].mean() for name in common]) for found in sets], axis=0)
    ranked = sorted(zip(table.tolist(), common, strict=True))
    return [{"features": f, "head": h, "mean_rank": mean, "n_data_sets": len(sets)} for mean, (f, h) in ranked]


def _data_sets(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs in groups that share no images: neither all of them, nor those of the test."""
    groups: list[list[Run]] = []
    for run in runs:
        ours, others = [run], []
        for group in groups:
            alike = any(run.images_key == each.images_key or run.test_key == each.test_key for each in group)
            if alike:
                ours = group + ours
            else:
                others.append(group)
        groups = [*others, ours]
    return groups


def _doubts(runs: Sequence[Run]) -> list[str]:
    """What the runs say against their own numbers."""
    return [f"{run.name}: {doubt}" for run in runs for doubt in run.doubts]


def _unpaired(runs: Sequence[Run]) -> list[str]:
    """Sentences on what cannot be paired, and why."""
    notes = []
    first, *others = [group[0] for group in _by(runs, "test_key")]
    for run in others:
        why = "split otherwise" if run.images_key == first.images_key else "other images or other labels"
        notes.append(
            f"{run.name} was tested on {run.n_test:,} images that are not those of {first.name} ({why}): "
            "their heads cannot be paired, so no test and no tie joins them."
        )
    return notes


def _unjoined(runs: Sequence[Run]) -> list[str]:
    """Sentences on data sets whose splits have no head in common."""
    return [
        f"The {len(_by(group, 'test_key'))} splits of {group[0].data_set} have no head in common: nothing joins them. "
        "Run the same heads on all of them."
        for group in _by(runs, "images_key")
        if not _by_head(group)
    ]


def _repeated(runs: Sequence[Run]) -> list[str]:
    """Sentences on heads that several runs tested on the same images, where splits or data sets are joined."""
    notes: list[str] = []
    tests = _by(runs, "test_key")
    if len(tests) < 2:
        return notes
    for group in tests:
        times = Counter(_what(entry) for run in group for entry in run.entries)
        repeated = ["/".join(what) for what, n in times.items() if n > 1]
        if repeated:
            notes.append(
                f"{', '.join(repeated)}: tested more than once on the images of {group[0].name}. Over splits and in "
                "the mean rank the newest run counts."
            )
    return notes
