"""The comparison of several runs: heads are paired where the test images are shared.

Heads that were tested on the same images under the same labels, in whatever run, are paired: an exact test for all
pairs (McNemar's, or the sign-flip test over groups and copies; by another metric than the accuracy
the permutation test), Holm's correction. Runs that split the same images in
different ways (seeds) are joined by the corrected resampled t-test. Over different data sets there is no test, only the
mean rank (Demsar 2006); other splits of the same images are no other data set.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import UsageError
from featurecache.base.text import printable
from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA, preference
from featurecache.runs.compared_runs import Entry, Run, read_run
from featurecache.runs.comparison_document import Compared, MeanRankRow, PairRow, RankedRow, SplitsRow, TestSetRow
from featurecache.runs.folder import CURRENT_FILE, PREDICTIONS_FILE
from featurecache.runs.head_choice import metric_of, value_of
from featurecache.runs.record_checks import read_results

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compare_runs(folders: Sequence[str | os.PathLike[str]], *, metric: str | None = None) -> Compared:
    """Compare the heads of run folders; plain values, for JSON.

    metric: what heads are ranked, tested and tied by, one of `classify.evaluation.criteria.METRICS`; that of the runs
    unless given, the accuracy where they differ. Raises UsageError for a folder that is no run or is named twice,
    PipelineError for a damaged one.
    """
    places = [Path(folder) for folder in folders]
    _check_folders(places)
    own = list(dict.fromkeys(metric_of(read_results(folder)) for folder in places))
    by = metric or (own[0] if len(own) == 1 else ACCURACY)
    names = _run_names(places)
    needs = by == "log_loss"
    runs = [read_run(folder, name, with_losses=needs) for folder, name in zip(places, names, strict=True)]
    rows: list[RankedRow] = []
    pairs: list[PairRow] = []
    test_sets: list[TestSetRow] = []
    for number, group in enumerate(_by(runs, "test_key"), start=1):
        coarsest = min(group, key=lambda run: len(np.unique(run.units)))  # runs of older versions know no groups
        test_sets.append(_test_set(number, coarsest))
        entries = [entry for run in group for entry in run.entries]
        found, tested = _compare_paired(entries, number, coarsest.units, by)
        rows += found
        pairs += tested
    return {
        "metric": by,
        "runs": [{"run": run.name, "data_set": run.data_set, "test_key": run.test_key} for run in runs],
        "test_sets": test_sets,
        "heads": rows,
        "pairs": pairs,
        "over_splits": [row for group in _by(runs, "images_key") for row in _over_splits(group, by)],
        "mean_ranks": _mean_ranks(runs, by),
        "notes": [*_other_metrics(runs, by), *_doubts(runs), *_unpaired(runs), *_unjoined(runs), *_repeated(runs)],
    }


def _test_set(number: int, run: Run) -> TestSetRow:
    n_units, units = len(np.unique(run.units)), "group" if run.grouped else "image"
    return {"test_set": number, "n_test": run.n_test, "n_test_units": n_units, "test_units": units}


def _other_metrics(runs: Sequence[Run], metric: str) -> list[str]:
    """Sentences on runs that chose their settings by another metric than they are compared by here."""
    return [
        f"{run.name} chose its settings by {CRITERIA[run.metric].title}, and is compared by {CRITERIA[metric].title}."
        for run in runs
        if run.metric != metric
    ]


def _check_folders(folders: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        if place in seen:
            raise UsageError(
                f"'{printable(folder)}' and '{printable(seen[place])}' are the same run: name every run once."
            )
        seen[place] = folder
        if (place.parent / CURRENT_FILE).exists() and not (place / PREDICTIONS_FILE).exists():
            source = read_results(folder).get("promoted", {}).get("from", "")
            raise UsageError(
                f"'{printable(folder)}' is a version of a model, which has no predictions, and runs are compared by "
                f"these: name the run that it is from, '{printable(source)}'."
            )


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
    entries: Sequence[Entry], number: int, units: NDArray[np.integer[Any]], metric: str
) -> tuple[list[RankedRow], list[PairRow]]:
    """Rank the heads of one test set of images in units (N,), best first; their rows, and the test of every pair."""
    from featurecache.classify.evaluation.permutation import Answers
    from featurecache.classify.evaluation.ranking import rank_heads

    ordered = sorted(entries, key=lambda entry: preference(entry.row, metric))
    classes = np.unique([*ordered[0].labels, *(label for entry in ordered for label in np.unique(entry.predicted))])
    answers = {entry.title: Answers(np.searchsorted(classes, entry.predicted), entry.losses) for entry in ordered}
    ranking = rank_heads(np.searchsorted(classes, ordered[0].labels), answers, metric=metric, units=units)
    rank, rows = ranking.rank, list[RankedRow]()
    for entry in ordered:
        p_value, tied = ranking.against_best[entry.title]
        rows.append({
            "test_set": number, **entry.row, "rank": rank[entry.title], "p_vs_best": p_value, "tied_with_best": tied
        })  # fmt: skip
    pairs: list[PairRow] = [
        {"test_set": number, "a": t.a, "b": t.b, "p": t.p, "p_holm": t.p_holm, "better": t.better}
        for t in ranking.pairs
    ]
    return rows, pairs


def _over_splits(runs: Sequence[Run], metric: str) -> list[SplitsRow]:
    """Join runs on different splits of the same images: a mean metric with its interval, and which heads are tied."""
    from featurecache.classify.evaluation.significance import SIGNIFICANCE, holm, mean_difference

    splits, values, by = _by(runs, "test_key"), _by_head(runs, metric), CRITERIA[metric]
    if len(splits) < 2:
        return []
    names = list(values)
    sizes = {
        "n_train": float(np.mean([group[0].n_train for group in splits])),
        "n_test": float(np.mean([group[0].n_test for group in splits])),
    }
    names.sort(key=lambda name: by.cost(float(values[name].mean())))
    pairs = list(combinations(names, 2))
    adjusted = holm([mean_difference(values[a] - values[b], **sizes)[3] for a, b in pairs])
    p_of = dict(zip(pairs, adjusted, strict=True))
    rows: list[SplitsRow] = []
    for name in names:
        mean, low, high, _ = mean_difference(values[name], **sizes)
        p = p_of.get((names[0], name), 1.0)
        ends = [max(0.0, low), high if by.lower_is_better else min(1.0, high)]
        rows.append({
            "data_set": runs[0].data_set, "features": name[0], "head": name[1], "n_splits": len(splits),
            "mean": mean, "mean_ci": ends, "p_vs_best": p, "tied_with_best": p > SIGNIFICANCE,
        })  # fmt: skip
        if metric == ACCURACY:
            rows[-1] |= {"accuracy": mean, "accuracy_ci": ends}
    return rows


def _by_head(runs: Sequence[Run], metric: str = ACCURACY) -> dict[tuple[str, str], NDArray[np.float64]]:
    """{(features, head): its metric on each of J splits, (J,)} for the heads that all splits have.

    The heads of a split may be spread over several runs; of a head that is in more than one the newest counts.
    """
    splits = [
        {_what(entry): value_of(entry.row, metric) for run in sorted(group, key=_age) for entry in run.entries}
        for group in _by(runs, "test_key")
    ]
    common = [name for name in splits[0] if all(name in split for split in splits)]
    return {name: np.array([split[name] for split in splits]) for name in common}


def _what(entry: Entry) -> tuple[str, str]:
    return entry.row["features"], entry.row["head"]


def _age(run: Run) -> str:
    return run.created


def _mean_ranks(runs: Sequence[Run], metric: str) -> list[MeanRankRow]:
    """The mean, over data sets, of the rank by a metric among the heads that all of them have; equals share ranks.

    The metric on a data set is the mean over its splits.
    """
    from scipy.stats import rankdata

    sets, by = [_by_head(group, metric) for group in _data_sets(runs)], CRITERIA[metric]
    common = [name for name in sets[0] if all(name in found for found in sets)]
    if len(sets) < 2 or len(common) < 2:
        return []
    table = np.mean([rankdata([by.cost(float(found[name].mean())) for name in common]) for found in sets], axis=0)
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
