"""The choice of a backbone, measured on a stratified subsample before the whole data set is extracted.

    subsample -> rows of every backbone into the ordinary cache (they need not be extracted again)
              -> the images that every backbone has features of
              -> LogME, H-score, LEEP, NCE (`classify.evaluation.transferability`); kNN and ridge, leave-one-out
              -> the order, what the whole set would cost, and a recommendation

The order is the mean rank over the measures that every candidate has. LEEP and NCE need the backbone's own classes,
which the pixels do not have.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.defaults import LARGEST_SEED
from featurecache.base.errors import PipelineError, RequestError
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import count_is, printable
from featurecache.base.values import not_of, not_whole, refuse
from featurecache.evaluate.join import groups_of
from featurecache.evaluate.rare_classes import left_out_line, left_out_rows
from featurecache.extract.images.left_out import NOT_SAMPLED, RARE_CLASS, Reason
from featurecache.extract.images.manifest import Manifest, Sample, no_manifest
from featurecache.extract.job.extract import Settings, extract_features
from featurecache.extract.job.outlook import OVERHEAD_BYTES_PER_ROW
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.summary import ExtractReport, Filled
from featurecache.features.joined import look_up_together
from featurecache.runs.command_lines import parts_of, parts_of_all
from featurecache.runs.file_counts import FileCounts, count_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_SAMPLE = 1000  # enough for a hundred images of each of ten classes, and seconds for a light backbone
LEAST_OF_CLASS = 2  # an image judged by the others needs another of its class
FASTER = 1.2  # a saving that is worth mentioning
MEASURES = ("logme", "h_score", "ridge", "knn", "leep", "nce")


@dataclass(frozen=True)
class Candidate:
    """One backbone on the subsample; more is better for all measures, None where it has no classes of its own.

    logme, h_score (shrunk), leep, nce: see `classify.evaluation.transferability`. ridge, knn: leave-one-out accuracy.
    images_per_second: as extracted here. full_seconds, full_bytes: all images, from nothing.
    rank: mean rank over the measures that all candidates have. p_vs_best: of the ridge's answers, by
    `classify.evaluation.significance.paired_test`.
    """

    backbone: str
    dim: int
    logme: float
    h_score: float
    ridge: float
    knn: float
    leep: float | None
    nce: float | None
    images_per_second: float
    full_seconds: float
    full_bytes: int
    rank: float = 0.0
    p_vs_best: float = 1.0


@dataclass(frozen=True)
class Selection:
    """The candidates, the best first, and what follows; size: of the input, None for what each backbone expects.

    n_left_out: images of the subsample that not every backbone has features of; files: every file, used or not.
    rare: {class: number of images} of the classes that are left out for having fewer than `least` images.
    """

    images: str
    n_images: int
    n_sample: int
    seed: int
    size: int | None
    candidates: tuple[Candidate, ...]
    advice: str
    n_left_out: int = 0
    files: FileCounts = field(default_factory=FileCounts)
    rare: Mapping[str, int] = field(default_factory=dict)
    least: int = LEAST_OF_CLASS

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        values = {**asdict(self), "images": printable(self.images), "candidates": [asdict(c) for c in self.candidates]}
        values |= {"files": self.files.to_dict(), "refused": [each.to_dict() for each in self.files.refusals]}
        del values["rare"], values["least"]
        return {**values, "left_out": left_out_rows(self.rare)}


def select_backbones(
    images: Manifest,
    backbones: Sequence[str],
    *,
    cache_root: str | os.PathLike[str],
    n_sample: int = N_SAMPLE,
    min_per_class: int = 1,
    seed: int = 0,
    size: int | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Extract a subsample with every backbone, measure how well each suits the labels, rank them and recommend one.

    Raises RequestError, PipelineError, or as `extract_features` does.
    """
    from featurecache.classify.evaluation.units import units_of

    wholes = (("n_sample", n_sample, 1), ("min_per_class", min_per_class, 1), ("seed", seed, 0, LARGEST_SEED))
    refuse(
        RequestError, no_manifest(images), not_of("backbones", backbones, str), *(not_whole(*each) for each in wholes)
    )
    progress, cache_root = progress or Silent(), Path(cache_root)
    least = max(LEAST_OF_CLASS, min_per_class)
    sample, left_out = subsample(images, n_sample, seed=seed, least=least)
    if left_out:
        progress.say(left_out_line(left_out, least))
    requests = [FeatureRequest(name, size=size) for name in backbones]
    extracted = {each: _extract(each, sample, progress, cache_root, settings) for each in parts_of_all(requests)}
    reports = [*extracted.values()]
    n_asked = len(set(sample.samples))
    common = _in_all(reports, n_asked)
    if len(common) < n_asked:
        progress.say(f"{count_is(n_asked - len(common), 'image')} left out: not every backbone has features of them.")
    measured = [
        _measure(each.backbone, [extracted[part].filled[0] for part in parts_of(each)], common, len(images))
        for each in requests
    ]
    units = units_of(np.stack(list(common.values())), groups_of(list(common)))
    candidates = _ranked([candidate for candidate, _ in measured], [correct for _, correct in measured], units)
    refusals = {each.name: each for report in reports for each in report.refusals}
    files = count_files(images, list(common), list(refusals.values()), why_unused=partial(_why_unused, left_out))
    measured_on = (images.source, len(images), len(common), seed, size)
    advice, n_left_out = advise(candidates, len(images)), n_asked - len(common)
    return Selection(*measured_on, candidates, advice, n_left_out, files, left_out, least)


def _why_unused(left_out: Mapping[str, int], sample: Sample) -> Reason:
    return RARE_CLASS if sample.label in left_out else NOT_SAMPLED


def subsample(manifest: Manifest, n: int, *, seed: int, least: int = LEAST_OF_CLASS) -> tuple[Manifest, dict[str, int]]:
    """About n labelled samples, every class in its share and with at least two; and which classes are left out.

    A class of fewer than `least` images is left out with its number of images; above two, members of a group count
    once. Raises PipelineError where there are not two other classes.
    """
    members: dict[str, list[Sample]] = {}
    for sample in manifest.samples:
        if sample.label is not None:
            members.setdefault(sample.label, []).append(sample)
    left_out = {label: len(own) for label, own in sorted(members.items()) if _n_distinct(own, least) < least}
    members = {label: own for label, own in members.items() if label not in left_out}
    if len(members) < 2:
        raise PipelineError(
            f"'{printable(manifest.root)}' has {len(members)} classes with {'two' if least == 2 else least} labelled "
            "images or more, and backbones are compared by how well they tell classes apart: give at least two such "
            "classes."
        )
    share = n / sum(map(len, members.values()))
    random = np.random.default_rng(seed)
    chosen = []
    for label in sorted(members):
        own = members[label]
        wanted = min(len(own), max(LEAST_OF_CLASS, round(share * len(own))))
        chosen += [own[i] for i in sorted(random.permutation(len(own))[:wanted])]
    return Manifest(manifest.root, tuple(chosen), manifest.left_out), left_out


def _n_distinct(samples: Sequence[Sample], least: int) -> int:
    if least <= LEAST_OF_CLASS:
        return len(samples)
    return len({("group", sample.group) if sample.group else ("image", sample.name) for sample in samples})


def advise(candidates: Sequence[Candidate], n_images: int) -> str:
    """A recommendation and its cost, and the fastest of the faster ones that are not shown to be worse by ridge."""
    from featurecache.classify.evaluation.significance import SIGNIFICANCE

    best, *others = candidates
    text = f"Recommended: {best.backbone}; {n_images:,} images take {_cost(best)}."
    fine = [each for each in others if _is_faster(each, best)]
    fine = [each for each in fine if each.p_vs_best > SIGNIFICANCE or each.ridge > best.ridge]
    if fine:
        cheap = max(fine, key=lambda each: each.images_per_second)
        differs = "is better by ridge" if cheap.p_vs_best <= SIGNIFICANCE else "is not shown to be worse"
        text += (
            f" {cheap.backbone} {differs} (ridge {100 * cheap.ridge:.1f} % against "
            f"{100 * best.ridge:.1f} %, p = {cheap.p_vs_best:.2g}) and takes {_cost(cheap)}."
        )
    return text


def _is_faster(one: Candidate, other: Candidate) -> bool:
    return one.images_per_second >= FASTER * other.images_per_second


def _cost(candidate: Candidate) -> str:
    from featurecache.base.text import readable_bytes, readable_seconds

    return f"{readable_seconds(candidate.full_seconds)} and {readable_bytes(candidate.full_bytes)}"


def _extract(
    request: FeatureRequest, sample: Manifest, progress: Progress, cache_root: Path, settings: Settings | None
) -> ExtractReport:
    progress.say(f"{request.backbone}:")
    return extract_features(sample, [request], cache_root, settings=settings, progress=progress)


def _in_all(reports: Sequence[ExtractReport], n_asked: int) -> dict[Sample, NDArray[np.uint8]]:
    """{sample: its digest} of the images that no backbone refused, in the order of the sample.

    Raises PipelineError where fewer than two classes of two of them are left.
    """
    found = [dict(zip(report.samples, report.digests, strict=True)) for report in reports]
    common = {one: digest for one, digest in found[0].items() if all(one in other for other in found)}
    sizes = Counter(one.label for one in common)
    n_classes = sum(n >= LEAST_OF_CLASS for n in sizes.values())
    if n_classes < 2:
        first = next((refusal for report in reports for refusal in report.refusals), None)
        why = f"; the first, '{printable(first.name)}', because: {printable(first.reason)}" if first else ""
        raise PipelineError(
            f"Of {n_asked:,} images {n_asked - len(common):,} are refused, and {n_classes} classes of two images are "
            f"left{why}. Repair or replace them."
        )
    return common


def _measure(
    name: str, parts: Sequence[Filled], common: Mapping[Sample, NDArray[np.uint8]], n_images: int
) -> tuple[Candidate, NDArray[np.bool_]]:
    """One backbone, or several joined, on the images that all have, and which of them the ridge gets right."""
    from featurecache.classify.evaluation import transferability
    from featurecache.classify.evaluation.leave_one_out import knn_correct, ridge_correct
    from featurecache.extract.backbones.own_classifier import source_proba

    X = look_up_together([(each.request, each.cache) for each in parts], np.stack(list(common.values())))
    y = np.unique([str(one.label) for one in common], return_inverse=True)[1].astype(np.int64)
    correct, _ = ridge_correct(X, y)
    theta = source_proba(name, X) if len(parts) == 1 else None
    rate, specs = 1 / sum(1 / _rate(filled) for filled in parts), [filled.resolved.spec for filled in parts]
    n_bytes = sum(spec.feature_dim * np.dtype(spec.dtype).itemsize + OVERHEAD_BYTES_PER_ROW for spec in specs)
    candidate = Candidate(
        backbone=name,
        dim=X.shape[1],
        logme=transferability.log_me(X, y),
        h_score=transferability.shrunk_h_score(X, y),
        ridge=float(correct.mean()),
        knn=float(knn_correct(X, y).mean()),
        leep=None if theta is None else transferability.leep(theta, y),
        nce=None if theta is None else transferability.nce(theta.argmax(axis=1), y),
        images_per_second=round(rate, 2),
        full_seconds=round(n_images / rate, 1),
        full_bytes=n_images * n_bytes,
    )
    return candidate, correct


def _rate(filled: Filled) -> float:
    """Images a second, over everything that this cache was filled with."""
    records = filled.cache.records()
    seconds = sum(float(record.get("seconds", 0.0)) for record in records)
    return sum(int(record["n"]) for record in records) / max(seconds, 1e-3)


def _ranked(
    found: Sequence[Candidate], correct: Sequence[NDArray[np.bool_]], units: NDArray[np.integer[Any]]
) -> tuple[Candidate, ...]:
    from featurecache.classify.evaluation.significance import paired_test

    votes = [name for name in MEASURES if all(getattr(each, name) is not None for each in found)]
    ranks = [
        float(np.mean([sum(getattr(other, name) > getattr(each, name) for other in found) + 1 for name in votes]))
        for each in found
    ]
    order = sorted(range(len(found)), key=lambda i: (ranks[i], -found[i].ridge))
    best = correct[order[0]]
    return tuple(replace(found[i], rank=ranks[i], p_vs_best=paired_test(correct[i], best, units)) for i in order)
