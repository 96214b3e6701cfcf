"""Cached features and labels, joined by image digest: the only place where both meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.defaults import SPLITS
from featurecache.base.errors import PipelineError
from featurecache.base.text import count, count_is, printable
from featurecache.evaluate.rare_classes import left_out_line, rare_classes
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.class_names import in_order
from featurecache.extract.images.digests import Digested, Refusal, digest_samples
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.job.matching import check_named
from featurecache.extract.job.outdated import OutdatedRows
from featurecache.extract.job.request import FeatureRequest, Resolved
from featurecache.features.feature_arrays import FeatureArrays, feature_names
from featurecache.features.feature_set import Features, Part
from featurecache.features.finding import find_cache, refused_images
from featurecache.features.joined import Joined, joined_rate, scale_of
from featurecache.features.nearest_features import features_missing
from featurecache.runs.command_lines import parts_of, parts_of_all
from featurecache.runs.file_counts import FileCounts, count_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from featurecache.extract.images.vectors.vectors import Vectors


@dataclass(frozen=True)
class Labelled:
    """The samples that have a label and are not refused: N samples, digests (N, 32), y (N,) codes into classes.

    Train comes first, then val, then test; within a split the order is that of the manifest.
    """

    samples: tuple[Sample, ...]
    digests: NDArray[np.uint8]
    y: NDArray[np.int64]
    classes: list[str]
    splits: NDArray[np.str_]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """{class: number of images} of the classes that are left out for having too few."""
    files: FileCounts = field(default_factory=FileCounts)
    """Every file of the data set, these samples and all others."""
    vectors: Vectors | None = None
    """Where the samples are vectors from a file: these, for which no cache is asked and of which no picture is seen."""

    @cached_property
    def units(self) -> NDArray[np.integer[Any]]:
        """The unit (N,) of each sample: copies of an image and images of one group share one."""
        from featurecache.classify.evaluation.units import units_of

        return units_of(self.digests, groups_of(self.samples))

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """The rows of the samples in these splits."""
        return np.flatnonzero(np.isin(self.splits, splits))

    def place(self, *splits: str) -> slice:
        """The same as a slice, for splits that follow one another: a view of X, not a copy."""
        n_before = sum(int((self.splits == split).sum()) for split in SPLITS[: SPLITS.index(splits[0])])
        return slice(n_before, n_before + len(self.rows(*splits)))


def label_samples(
    manifest: Manifest,
    memo: Memo,
    *,
    seed: int,
    requests: Sequence[FeatureRequest] = (),
    cache_root: Path | None = None,
    min_per_class: int = 1,
    digested: Digested | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Labelled:
    """Digest, leave out what has no label or is refused, and split. Raises PipelineError or ClassifyError.

    digested: the samples and their digests, if known. An image is refused where a cache of the requested features lacks
    it and extract recorded why. Classes with fewer than `min_per_class` images, counting copies and members of a group
    once, are left out.
    """
    if manifest.vectors is not None:
        digested = Digested(manifest.samples, manifest.vectors.digests, (), 0)
    digested = digested or digest_samples(manifest.samples, memo, on_progress=on_progress)
    wanted = digested.digests[[sample.label is not None for sample in digested.samples]]
    root = None if manifest.vectors is not None else cache_root
    refused = {} if root is None else refused_images(digested.digests, requests, root, memo, wanted=wanted)
    kept, refusals, n_unlabelled = _sort_out(digested, refused)
    if not kept:
        raise _none_left(manifest, refusals, n_unlabelled)
    notes = [f"{count_is(n_unlabelled, manifest.noun, 'without a label')} left out."] if n_unlabelled else []
    labels, groups = [str(digested.samples[i].label) for i in kept], groups_of([digested.samples[i] for i in kept])
    left_out = rare_classes(labels, digested.digests[kept], groups, min_per_class)
    if left_out:
        notes.append(left_out_line(left_out, min_per_class))
        kept = [i for i, label in zip(kept, labels, strict=True) if label not in left_out]
    samples, digests = tuple(digested.samples[i] for i in kept), digested.digests[kept]
    classes = in_order({str(sample.label) for sample in samples})
    y = codes_of(samples, classes)
    splits = split_samples(samples, digests, seed=seed)
    order = np.argsort([SPLITS.index(str(split)) for split in splits], kind="stable")
    samples = tuple(samples[i] for i in order)
    splits, digests, y = splits[order], digests[order], y[order]
    files = count_files(manifest, samples, refusals)
    return Labelled(
        samples, digests, y, classes, splits, tuple(refusals), tuple(notes), left_out, files, manifest.vectors
    )


def _none_left(manifest: Manifest, refusals: Sequence[Refusal], n_unlabelled: int) -> PipelineError:
    """The error where every sample is refused or has no label."""
    if refusals and not n_unlabelled:
        return PipelineError(
            f"All {len(refusals):,} images in '{printable(manifest.root)}' are refused, the first, "
            f"'{printable(refusals[0].name)}', because: {printable(refusals[0].reason)}. "
            "Repair or replace them, and extract again."
        )
    advice = "Put them into one folder per class, or write a manifest with the columns path and label."
    where = printable(manifest.source or manifest.root)
    return PipelineError(
        f"None of the {count(len(manifest), manifest.noun)} in '{where}' has a label. {manifest.no_labels or advice}"
    )


def _sort_out(digested: Digested, refused: Mapping[bytes, str]) -> tuple[list[int], list[Refusal], int]:
    """The rows that have a label and are not refused, all refusals, and how many images have no label."""
    refusals = list(digested.refusals)
    kept: list[int] = []
    n_unlabelled = 0
    for i, sample in enumerate(digested.samples):
        digest = bytes(digested.digests[i])
        if digest in refused:
            refusals.append(Refusal(sample.name, digest.hex(), refused[digest]))
        elif sample.label is None:
            n_unlabelled += 1
        else:
            kept.append(i)
    return kept, refusals, n_unlabelled


def groups_of(samples: Sequence[Sample]) -> list[str | None]:
    """The group of each sample by the name that it is printed with, None for no group."""
    return [printable(sample.group) if sample.group else None for sample in samples]


def split_samples(samples: Sequence[Sample], digests: NDArray[np.uint8], *, seed: int) -> NDArray[np.str_]:
    """The split of each of N labelled samples, as given or by their content. Raises ClassifyError.

    Classes are taken by characters here, whatever their order elsewhere: splits are those of earlier versions.
    """
    from featurecache.classify.selection.splits import assign_splits

    classes = sorted({str(sample.label) for sample in samples})
    return assign_splits(
        digests,
        codes_of(samples, classes),
        given=[s.split for s in samples] if any(s.split for s in samples) else None,
        groups=groups_of(samples),
        seed=seed,
        classes=[printable(name) for name in classes],
    )


def codes_of(samples: Sequence[Sample], classes: Sequence[str]) -> NDArray[np.int64]:
    """The code (N,) of each labelled sample: the place of its label among the classes."""
    code = {name: i for i, name in enumerate(classes)}
    return np.array([code[str(sample.label)] for sample in samples], dtype=np.int64)


def look_up(
    labelled: Labelled,
    requests: Sequence[FeatureRequest],
    *,
    cache_root: Path,
    memo: Memo,
    arrays: FeatureArrays | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Features]:
    """The features of every labelled sample for every request, from the cache alone, or from their file of vectors.

    arrays: memory and files for them. say: called with a line before anything that takes long.
    Raises FeaturesMissing where a row is missing: no backbone is loaded here.
    """
    arrays = arrays or FeatureArrays(float("inf"), cache_root)
    if labelled.vectors is not None:
        return [vector_features(labelled.vectors, labelled.digests, arrays)]
    singles = parts_of_all(requests)
    found = {each: find_cache(each, labelled.digests, cache_root=cache_root, memo=memo) for each in singles}
    absent = {
        request: cache for request, cache in found.items() if cache is None or cache[1].missing(labelled.digests).any()
    }
    if absent:
        for request in absent:
            check_named(request)
        raise features_missing(absent, labelled.digests, cache_root=cache_root, memo=memo)
    names_of, outdated = feature_names(requests), OutdatedRows.among(labelled.samples, labelled.digests, say)
    whole = {request: cache for request, cache in found.items() if cache is not None}
    caches = [{each: whole[each] for each in parts_of(request)} for request in requests]
    return [
        _features(labelled, names_of[request], request, own, arrays, outdated)
        for request, own in zip(requests, caches, strict=True)
    ]


def vector_features(vectors: Vectors, digests: NDArray[np.uint8], arrays: FeatureArrays) -> Features:
    """The vectors of a file in the order of these digests (N, 32), as features that cost nothing."""
    resolved = Resolved(vectors.spec, vectors.origin)
    return Features(vectors.name, FeatureRequest(vectors.name), resolved, arrays.load(vectors, digests), 0.0, 0.0)


def _features(
    labelled: Labelled,
    name: str,
    request: FeatureRequest,
    caches: Mapping[FeatureRequest, tuple[Resolved, FeatureCache]],
    arrays: FeatureArrays,
    outdated: OutdatedRows,
) -> Features:
    """One kind of features by its cache, or those of several caches joined."""
    train = labelled.digests[labelled.place("train")]
    costs = [_cost(cache, len(labelled.digests)) for _, cache in caches.values()]
    seconds, rate = sum(cost[0] for cost in costs), joined_rate([cost[1] for cost in costs])
    note = " ".join(filter(None, (outdated.note(cache) for _, cache in caches.values())))
    if len(caches) == 1:
        ((resolved, cache),) = caches.values()
        return Features(name, request, resolved, arrays.load(cache, labelled.digests), seconds, rate, note)
    parts = tuple(Part(each, own.spec, scale_of(cache, train)) for each, (own, cache) in caches.items())
    joined = Joined.of(parts, [cache for _, cache in caches.values()])
    resolved = Resolved(joined.spec, " + ".join(own.weights for own, _ in caches.values()))
    return Features(name, request, resolved, arrays.load(joined, labelled.digests), seconds, rate, note, parts)


def _cost(cache: FeatureCache, n: int) -> tuple[float, float]:
    """The seconds that the features of n images took, and images a second, by the records of the cache."""
    records = cache.records()
    n_rows, seconds = sum(int(each["n"]) for each in records), sum(float(each.get("seconds", 0.0)) for each in records)
    return round(seconds / n_rows * n, 3), round(n_rows / seconds if seconds else 0.0, 2)
