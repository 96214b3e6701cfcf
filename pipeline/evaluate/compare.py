"""The comparison of several runs: heads are paired where the test images are shared.

Heads that were tested on the same images under the same labels, in whatever run, are paired: an exact test for all
pairs (McNemar's, or the sign-flip test over groups and copies), Holm's correction. Runs that split the same images in
different ways (seeds) are joined by the corrected resampled t-test. Over different data sets there is no test, only the
mean rank (Demsar 2006); other splits of the same images are no other data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import UsageError
from featurecache.base.text import printable
from featurecache.runs.compared_runs import Entry, Run, read_run
from featurecache.runs.comparison_document import Compared, MeanRankRow, PairRow, RankedRow, SplitsRow, TestSetRow

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compare_runs(folders: Sequence[Path]) -> Compared:
    """Compare the heads of run folders; plain values, for JSON.

    Raises UsageError for a folder that is no run or is named twice, PipelineError for a damaged one.
    """
    _check_folders(folders)
    runs = [read_run(folder, name) for folder, name in zip(folders, _run_names(folders), strict=True)]
    rows: list[RankedRow] = []
    pairs: list[PairRow] = []
    test_sets: list[TestSetRow] = []
    for number, group in enumerate(_by(runs, "test_key"), start=1):
        coarsest = min(group, key=lambda run: len(np.unique(run.units)))  # runs of older versions know no groups
        test_sets.append(_test_set(number, coarsest))
        entries = [entry for run in group for entry in run.entries]
        found, tested = _compare_paired(entries, number, coarsest.units)
        rows += found
        pairs += tested
    return {
        "runs": [{"run": run.name, "data_set": run.data_set, "test_key": run.test_key} for run in runs],
        "test_sets": test_sets,
        "heads": rows,
        "pairs": pairs,
        "over_splits": [row for group in _by(runs, "images_key") for row in _over_splits(group)],
        "mean_ranks": _mean_ranks(runs),
        "notes": [*_doubts(runs), *_unpaired(runs), *_unjoined(runs), *_repeated(runs)],
    }


def _test_set(number: int, run: Run) -> TestSetRow:
    n_units, units = len(np.unique(run.units)), "group" if run.grouped else "image"
    return {"test_set": number, "n_test": run.n_test, "n_test_units": n_units, "test_units": units}


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


def _compare_paired(
    entries: Sequence[Entry], number: int, units: NDArray[np.integer[Any]]
) -> tuple[list[RankedRow], list[PairRow]]:
    """Rank the heads of one test set of images in units (N,), best first; their rows, and the test of every pair."""
    from featurecache.classify.evaluation.significance import compare_pairs, compare_with_best, ranks

    correct = {entry.title: entry.correct for entry in sorted(entries, key=_best_first)}
    tests = compare_pairs(correct, units)
    rank, against_best = ranks(list(correct), tests), compare_with_best(correct, units)
    rows: list[RankedRow] = []
    for entry in sorted(entries, key=_best_first):
        p_value, tied = against_best[entry.title]
        rows.append({
            "test_set": number, **entry.row, "rank": rank[entry.title], "p_vs_best": p_value, "tied_with_best": tied
        })  # fmt: skip
    pairs: list[PairRow] = [
        {"test_set": number, "a": t.a, "b": t.b, "p": t.p, "p_holm": t.p_holm, "better": t.better} for t in tests
    ]
    return rows, pairs


def _best_first(entry: Entry) -> tuple[float, float]:
    return -entry.row["accuracy"], entry.row["log_loss"]


def _over_splits(runs: Sequence[Run]) -> list[SplitsRow]:
    """Join runs on different splits of the same images: mean accuracy with its interval, and which heads are tied."""
    from featurecache.classify.evaluation.significance import SIGNIFICANCE, holm, mean_difference

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
    rows: list[SplitsRow] = []
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

    The heads of a split may be spread over several runs; of a head that is in more than one the newest counts.
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


def _mean_ranks(runs: Sequence[Run]) -> list[MeanRankRow]:
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
            is_same = any(run.images_key == each.images_key or run.test_key == each.test_key for each in group)
            if is_same:
                ours = group + ours
            else:
                others.append(group)
        groups = [*others, ours]
    return groups


def _doubts(runs: Sequence[Run]) -> list[str]:
    """The warnings of the runs about their own numbers."""
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
