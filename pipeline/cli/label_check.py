"""Labels that cannot be split, found before anything is extracted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.errors import ClassifyError, PipelineError
from featurecache.base.progress import Progress, Silent
from featurecache.cli.options import CacheOption, SplitOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurecache.extract.images.manifest import Manifest, Sample

# Classes of fewer images may have too few different ones to be on all sides of a split.
SMALL_CLASS, N_SIDES = 50, 3


def check_labels(
    manifest: Manifest,
    split: SplitOptions,
    cache: CacheOption,
    progress: Progress,
    *,
    folds: int | None,
    read_only: bool = False,
) -> None:
    """Raise what `classify` would raise for labels that cannot be split, before an hour of extraction, not after it.

    As far as that is known before any image is decoded. Copies count as one in classes of fewer than 50 images, whose
    files are read if they may be copies by their sizes; those of larger classes only where the labels cannot be split
    otherwise, and then all files are read. read_only: whether nothing of that is kept in the cache.
    """
    from featurecache.classify.selection.holdouts import val_round
    from featurecache.evaluate.join import label_samples
    from featurecache.extract.cache.memo import Memo
    from featurecache.extract.images.digests import Digested, stand_in_digests

    def check(digested: Digested | None) -> None:
        labelled = label_samples(
            manifest,
            memo,
            seed=split.seed,
            min_per_class=split.min_per_class,
            digested=digested,
            on_progress=progress.digesting,
        )
        if folds is None:
            val_round(len(labelled.rows("train")), len(labelled.rows("train", "val")))

    with Memo(cache.cache, read_only=read_only) as memo:
        if manifest.vectors is not None:
            check(None)
            return
        try:
            read = possible_copies(manifest.samples, n_distinct=max(N_SIDES, split.min_per_class))
            check(stand_in_digests(manifest.samples, memo, read=read, on_progress=progress.digesting))
        except ClassifyError:
            check(None)


def would_stop(manifest: Manifest, split: SplitOptions, cache: CacheOption, *, folds: int | None) -> str:
    """The sentence with which `run` would stop for these labels; empty where it would go on. Nothing is written."""
    try:
        check_labels(manifest, split, cache, Silent(), folds=folds, read_only=True)
    except (ClassifyError, PipelineError) as error:
        return str(error)
    return ""


def possible_copies(samples: Sequence[Sample], *, n_distinct: int) -> set[int]:
    """The positions of the samples in small classes that may have fewer than `n_distinct` different images.

    Files of different sizes are no copies. With groups, which copies can join, all samples of small classes are taken.
    """
    classes: dict[tuple[str | None, str | None], list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.label is not None:
            classes.setdefault((sample.label, sample.split), []).append(i)
    found = set[int]()
    for own in classes.values():
        if len(own) < SMALL_CLASS:
            has_groups = any(samples[i].group for i in own)
            if has_groups or len({_size_of(samples[i].path) for i in own}) < n_distinct:
                found.update(own)
    return found


def _size_of(path: str) -> int:
    """The bytes of a file; -1 where it cannot be looked at."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return -1
