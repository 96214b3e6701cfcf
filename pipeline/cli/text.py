"""Results as text: what `classify`, `extract` and `predict` print on stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from featurecache.base.text import count, printable, short, table
from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA, METRICS
from featurecache.evaluate.rare_classes import left_out_line, left_out_of
from featurecache.runs.documents import DoublingRow, FewLabels, HeadRow, Results, ShotsRow
from featurecache.runs.head_choice import head_titles, interval_of, metric_of, value_of
from featurecache.runs.result_notes import few_shot_note, paired_test_name, units_text

if TYPE_CHECKING:
    from featurecache.extract.images.digests import Refusal
    from featurecache.extract.job.summary import ExtractReport, Filled
    from featurecache.predictions.outcome import Outcome
    from featurecache.runs.file_counts import FileCounts

# So many refused images are named on the terminal; all of them are in errors.csv.
MAX_REFUSALS_SHOWN = 10
# So many labels that a head does not have are named; all of them are in --json.
MAX_LABELS_SHOWN = 10
# Characters for the names of the heads of an ensemble in a table.
MOST_OF_MEMBERS = 60


def leaderboard_text(results: Results) -> str:
    """The heads, best on test by the metric of the run first, with what was chosen and which are tied with the best."""
    heads, metric = results["heads"], metric_of(results)
    by, rows = CRITERIA[metric], []
    for title, head in zip(_titles(heads), heads, strict=True):
        test = head["test"]
        rows.append([
            title + ("" if head["tied_with_best"] is False else " *"),
            _settings(head),
            by.number(head["val"][metric]),
            by.number(value_of(test, metric)),
            "-".join(map(by.number, interval_of(test, metric) or ())),
            *(CRITERIA[name].number(value_of(test, name)) for name in METRICS if name != metric),
            f"{test['ece']:.3f}",
            f"{head['fit_seconds']:.1f}",
        ])  # fmt: skip
    folds = results["config"].get("folds")
    where = f"{folds} folds" if folds else "val"
    column = "%" if metric == ACCURACY else by.column
    others = [CRITERIA[name].column for name in METRICS if name != metric]
    headers = ["head", f"chosen {'by' if folds else 'on'} {where}", f"{where} {column}", f"test {column}",
               "95 % interval", *others, "ECE", "fit s"]  # fmt: skip
    data = results["dataset"]
    title = (
        f"{data['name']}: {len(data['classes'])} classes, {data['n_train']:,} train, {data['n_val']:,} val, "
        f"{data['n_test']:,} test"
    )
    if left_out := left_out_of(data):
        title += f"\n{left_out_line(left_out, results['config']['min_per_class'])}"
    test_name = paired_test_name(data, metric)
    foot = f"* not significantly worse than the best ({test_name} of all pairs, Holm's correction, 5 %)"
    if metric != ACCURACY:
        foot += f"\nchosen, ranked and tested by {by.title}" + (", lower is better" if by.lower_is_better else "")
    if units := units_text(data):
        foot += f"\nintervals and tests by {units}, since images of one are no independent evidence"
    return f"{title}\n\n{table(rows, headers, right=range(2, 10))}\n\n{foot}"


def _settings(head: HeadRow) -> str:
    """The settings of a head; of an ensemble of many heads their number, since results.json names them."""
    text = " ".join(f"{key}={short(value)}" for key, value in head["params"].items()) or "defaults"
    members = head.get("members") or []
    return text if len(text) <= MOST_OF_MEMBERS or not members else f"mean_of={len(members)} heads"


def _titles(heads: Sequence[HeadRow]) -> list[str]:
    return head_titles([(head["features"], head["name"]) for head in heads])


def tempering_text(results: Results) -> str:
    """What tempering did to the probabilities of each head on test; empty without --calibrate."""
    heads = results["heads"]
    rows = []
    for title, head in zip(_titles(heads), heads, strict=True):
        if effect := head["tempering"]:
            pairs = [
                f"{effect['log_loss_before']:.3f} -> {effect['log_loss_after']:.3f}",
                f"{effect['ece_before']:.3f} -> {effect['ece_after']:.3f}",
            ]
            rows.append([title, f"{effect['temperature']:.3f}", *pairs])
    headers = ("head", "temperature", "test log loss", "test ECE")
    return f"probabilities tempered on val, p^(1/T)\n\n{table(rows, headers, right=(1, 2, 3))}" if rows else ""


def few_shot_text(results: FewLabels | Results) -> str:
    """One line a head: test accuracy by labels per class, with all and twice as many; empty without shots."""
    if not results.get("shots"):
        return ""
    lines: dict[tuple[str, str], list[ShotsRow]] = {}
    for row in results["shots"]:
        lines.setdefault((row["features"], row["head"]), []).append(row)
    doubled = {(row["features"], row["head"]): row for row in results["doubling"]}
    rows = []
    for title, (key, points) in zip(head_titles(list(lines)), lines.items(), strict=True):
        cells = [f"{100 * p['mean']:.1f} ± {50 * (p['high'] - p['low']):.1f}" for p in points[:-1]]
        cells.append(f"{100 * points[-1]['mean']:.2f}")
        if doubled:
            cells.append(_doubled_cell(doubled.get(key)))
        rows.append([title, *cells])
    shots = [f"{point['shots']} a class" for point in next(iter(lines.values()))[:-1]]
    headers = ["head", *shots, "all", *(["twice as many, expected"] if doubled else [])]
    n_repeats = results["shots"][0]["repeats"]
    title = f"test % with few labels (mean of {n_repeats} draws of the labels, ± its 95 % interval)"
    text = f"{title}\n\n{table(rows, headers, right=range(1, len(headers)))}"
    note = few_shot_note(results)
    return f"{text}\n\n{note}" if note else text


def _doubled_cell(row: DoublingRow | None) -> str:
    if row is None:
        return ""
    return f"{100 * row['expected']:.1f} ({100 * row['low']:.1f}-{100 * row['high']:.1f})"


def extract_text(report: ExtractReport) -> str:
    """Return a line for each cache, and one with the seconds of each step."""
    lines = [_filled_line(filled, report) for filled in report.filled]
    if report.n_decoded:
        s = report.seconds
        lines.append(
            f"time: {s.total:.1f} s in all: digests {s.digest:.1f} s, loading {s.load:.1f} s, "
            f"computing {s.wait:.1f} s; its threads together: read {s.read:.1f} s, decode {s.decode:.1f} s, "
            f"network {s.forward:.1f} s, write {s.write:.1f} s"
        )
    return "\n".join(lines)


def _filled_line(filled: Filled, report: ExtractReport) -> str:
    spec = filled.resolved.spec
    layer = f", {filled.request.layer}" if filled.request.layer else ""
    again = f"{filled.n_outdated:,} of them again by newer decode rules, " if filled.n_outdated else ""
    rate = f" ({filled.n_extracted / report.seconds.total:.1f} images/s)" if filled.n_extracted else ""
    return (
        f"{spec.backbone} ({filled.resolved.weights}{layer}): {count(filled.n_present + filled.n_extracted, 'image')}, "
        f"{filled.n_present:,} already there, {filled.n_extracted:,} extracted in {report.seconds.total:.1f} s{rate}, "
        f"{again}{spec.feature_dim} numbers each\n  {filled.cache.folder / 'features.h5'}"
    )


def refused_line(n_of: Mapping[str, int], listed_in: object) -> str:
    """How many are refused, by what they are ({"image": 3, "folder": 1}), and where all of them are listed."""
    *first, last = (count(n, noun) for noun, n in n_of.items() if n)
    found = f"{', '.join(first)} and {last}" if first else last
    return f"{found} {'is' if sum(n_of.values()) == 1 else 'are'} refused and left out, all listed in {listed_in}"


def refusals_text(refusals: Sequence[Refusal], n_of: Mapping[str, int], listed_in: object) -> str:
    """What is refused by name and reason, and where all of them are listed; n_of: as in `refused_line`."""
    lines = [f"{refused_line(n_of, listed_in)}:"]
    lines += [f"  {printable(r.name)}: {printable(r.reason)}" for r in refusals[:MAX_REFUSALS_SHOWN]]
    if len(refusals) > MAX_REFUSALS_SHOWN:
        lines.append(f"  and {len(refusals) - MAX_REFUSALS_SHOWN:,} more")
    return "\n".join(lines)


def extract_json(report: ExtractReport, files: FileCounts) -> str:
    """The same for a program."""
    caches = [
        {
            "backbone": f.resolved.spec.backbone,
            "weights": f.resolved.weights,
            "layer": f.resolved.spec.layer,
            "pooling": f.resolved.spec.pooling,
            "key": f.resolved.spec.key,
            "folder": str(f.cache.folder),
            "dim": f.resolved.spec.feature_dim,
            "n_present": f.n_present,
            "n_extracted": f.n_extracted,
            "n_outdated": f.n_outdated,
        }
        for f in report.filled
    ]
    values = {
        "n_samples": len(report.samples),
        "n_decoded": report.n_decoded,
        "caches": caches,
        "refused": [refusal.to_dict() for refusal in files.refusals],
        "files": files.to_dict(),
        "notes": list(report.notes),
        "seconds": asdict(report.seconds),
    }
    return json.dumps(values, indent=2)


def outcome_lines(head: str, outcome: Outcome, least: float | None, *, is_of_run: bool = True) -> list[str]:
    """Return lines on how many labels are right, unsure, and not of the head.

    least: the probability of sure ones. is_of_run: whether there may be other heads to name.
    """
    noun = outcome.noun
    lines = [f"labelled by the head {head}{'; --head takes another of the run' if is_of_run else ''}"]
    if outcome.n_known:
        share = f"{outcome.n_right:,} of {outcome.n_known:,} labelled {noun}s right, "
        share += f"{outcome.n_right / outcome.n_known:.2%}"
        lines = [f"{head}: {share} ({noun}s that the head was trained on count too)"]
    if least is not None and outcome.n_unsure:
        share = f"{count(outcome.n_unsure, noun)} of {outcome.n_images:,}"
        lines.append(f"{share} left without a label: the best is less probable than {least:g}")
    if outcome.unknown:
        names = [name for name, _ in outcome.unknown.most_common()]
        n, named = outcome.unknown.total(), ", ".join(names[:MAX_LABELS_SHOWN])
        more = f" and {len(names) - MAX_LABELS_SHOWN:,} more" if len(names) > MAX_LABELS_SHOWN else ""
        have = "has" if n == 1 else "have"
        lines.append(f"{count(n, noun)} {have} a label that the head does not have: {named}{more}")
    return lines
