"""The audit of a data set: copies, leaks between splits, doubtful labels, outliers.

    duplicates            the same bytes, or the same pixels in other bytes
    near_duplicates       one picture saved, resized or toned again (`copies.py` says what is near)
    groups_across_splits  a group with images on both sides
    conflicting_labels    one image under two labels
    doubtful_labels       labels that heads trained without the image do not believe (`label_errors`)
    outliers              images far from all others in the features
    small_classes         classes with too few test images to be judged

Test accuracies can be too high where test images, or their groups, are in train or val too, and too low where one has
another label there or in test (`leak_effect.py` says by how much at most). Copies between train and val spoil the
choice of a head, and the rest is for people to look at.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.defaults import DEFAULT_CACHE, LARGEST_SEED, SPLITS
from featurecache.base.errors import RequestError
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import printable
from featurecache.base.values import not_whole, refuse
from featurecache.evaluate.audit_document import (
    AuditDocument,
    DoubtfulLabel,
    Findings,
    Outlier,
    SmallClass,
    copies_row,
    group_row,
    member_row,
    members_row,
    near_row,
)
from featurecache.evaluate.copies import Copies, NearCopy, find_near_copies, same_bytes
from featurecache.evaluate.join import Labelled, label_samples, look_up
from featurecache.evaluate.leak_effect import Leakage, find_leakage
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.manifest import Manifest, no_manifest
from featurecache.extract.job.request import FeatureRequest
from featurecache.features.requested import requests_for
from featurecache.runs.file_counts import FileCounts

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
FINDINGS = ("duplicates", "near_duplicates", "groups_across_splits", "conflicting_labels", "doubtful_labels",
            "outliers", "small_classes")  # fmt: skip
N_FOLDS = 5
N_NEIGHBOURS = 10  # of an outlier: a handful of strange images alike must not make one another look usual
FAR = 3.5  # robust z-score of the log distance, from which Iglewicz and Hoaglin (1993) call a value an outlier
MAD_TO_SIGMA = 0.6745  # median absolute deviation of the normal distribution
MOST_NEAR = 10_000  # pairs that are listed: 3 MB of audit.json
FEW_TEST_IMAGES = 10  # nine right of ten is anything from 60 to 98 %, by Wilson's 95 % interval


@dataclass(frozen=True)
class Audit:
    """Everything that was found.

    leakage: the test images that are in train or val too, or have two labels.
    findings: a list of plain dicts for every name in FINDINGS. n_near: pairs of near-copies, of which up to 10,000 are
    listed.
    files: every file, used or not.
    """

    images: str
    backbone: str
    n_images: int
    n_of_split: dict[str, int]
    seed: int
    leakage: Leakage
    findings: Findings
    n_near: int = 0
    files: FileCounts = field(default_factory=FileCounts)

    def to_dict(self) -> AuditDocument:
        """Return audit.json."""
        return {
            "format": FORMAT,
            "images": printable(self.images),
            "backbone": self.backbone,
            "seed": self.seed,
            "n_images": self.n_images,
            "n_of_split": self.n_of_split,
            "untrue": self.leakage.matters(),
            "why": self.leakage.verdict(),
            "n_leaked": self.leakage.n_leaked,
            "share_leaked": round(self.leakage.share, 6),
            "n_near_duplicates": self.n_near,
            "refused": [refusal.to_dict() for refusal in self.files.refusals],
            "files": self.files.to_dict(),
            **self.findings,
        }


def audit_images(
    images: Manifest,
    request: FeatureRequest | None = None,
    *,
    cache_root: str | os.PathLike[str] = DEFAULT_CACHE,
    seed: int = 0,
    min_per_class: int = 1,
    progress: Progress | None = None,
) -> Audit:
    """Look for copies, leaks between splits, doubtful labels and outliers, with the features of one request.

    Only the cache is asked for features; vectors from a file need no request, and have no pictures by which near-copies
    could be found. min_per_class: classes with fewer images are left out, as in `classify`.

    Raises RequestError, FeaturesMissing where an image has no features, ClassifyError where there is nothing to split.
    """
    wholes = not_whole("min_per_class", min_per_class, 1), not_whole("seed", seed, 0, LARGEST_SEED)
    refuse(RequestError, no_manifest(images), *wholes)
    progress, cache_root = progress or Silent(), Path(cache_root)
    (asked,) = requests_for(images, () if request is None else (request,))
    _say(images.notes, progress)
    with Memo(cache_root, read_only=not cache_root.exists()) as memo:
        labelled = label_samples(
            images, memo, seed=seed, requests=[asked], cache_root=cache_root,
            min_per_class=min_per_class, on_progress=progress.digesting,
        )  # fmt: skip
        (features,) = look_up(labelled, [asked], cache_root=cache_root, memo=memo, say=progress.say)
    _say([*labelled.notes, *filter(None, [features.note])], progress)
    copies, near = _all_copies(labelled, progress)
    groups = groups_across(labelled)
    conflicting = conflicts(labelled, copies, near)
    findings: Findings = {
        "duplicates": [copies_row(labelled, each) for each in copies],
        "near_duplicates": [near_row(labelled, each, features.X) for each in _listed(labelled, near)],
        "groups_across_splits": [group_row(labelled, name, rows) for name, rows in groups.items()],
        "conflicting_labels": [{"same": same, **members_row(labelled, rows)} for same, rows in conflicting],
        "doubtful_labels": doubtful_labels(labelled, features.X, seed=seed),
        "outliers": outliers(labelled, features.X, progress, seed=seed),
        "small_classes": small_classes(labelled),
    }
    n_of_split = {split: int((labelled.splits == split).sum()) for split in SPLITS}
    leakage = _leakage(labelled, copies, near, list(groups.values()))
    return Audit(
        images.source, features.name, len(labelled.samples), n_of_split, seed, leakage, findings,
        n_near=len(near), files=labelled.files,
    )  # fmt: skip


def _say(notes: Sequence[str], progress: Progress) -> None:
    for note in notes:
        progress.say(note)


def _all_copies(labelled: Labelled, progress: Progress) -> tuple[list[Copies], list[NearCopy]]:
    """Return the images that are the same by bytes or pixels, and pairs that nearly are; of vectors equal ones."""
    if labelled.vectors is not None:
        progress.say("Near-copies are not looked for: vectors from a file have no pictures.")
        return same_bytes(labelled.digests), []
    equal, near = find_near_copies(
        labelled.samples,
        labelled.digests,
        splits=labelled.splits,
        on_reading=lambda done, total: progress.counting("looking", "images", done, total),
        on_comparing=lambda done, total: progress.counting("comparing", "images", done, total),
    )
    return [*same_bytes(labelled.digests), *equal], near


def _leakage(
    labelled: Labelled, copies: Sequence[Copies], near: Sequence[NearCopy], groups: Sequence[list[int]]
) -> Leakage:
    n_test = len(labelled.rows("test"))
    return find_leakage(
        labelled,
        copies=[each.rows for each in copies],
        near=[(each.first, each.second) for each in near],
        groups=groups,
        clause=lambda n, what: f"{n:,} of {n_test:,} test images {'is' if n == 1 else 'are'} {what}",
    )


def _listed(labelled: Labelled, near: Sequence[NearCopy]) -> list[NearCopy]:
    """The near-copies that are listed one by one: those across splits first, then the closest."""
    across = sorted(near, key=lambda each: bool(labelled.splits[each.first] == labelled.splits[each.second]))
    return across[:MOST_NEAR]


def groups_across(labelled: Labelled) -> dict[str, list[int]]:
    """The samples of every group that has some on more than one side."""
    members: dict[str, list[int]] = {}
    for i, sample in enumerate(labelled.samples):
        if sample.group:
            members.setdefault(sample.group, []).append(i)
    return {name: rows for name, rows in members.items() if len(set(labelled.splits[rows])) > 1}


def conflicts(
    labelled: Labelled, copies: Sequence[Copies], near: Sequence[NearCopy]
) -> list[tuple[str, tuple[int, ...]]]:
    """Return the images that are the same under two labels: how they are the same, and their samples."""
    same = [(each.same, each.rows) for each in copies]
    same += [("nearly", (each.first, each.second)) for each in near]
    return [(how, rows) for how, rows in same if len(set(labelled.y[list(rows)])) > 1]


def doubtful_labels(labelled: Labelled, X: NDArray[np.float32], *, seed: int) -> list[DoubtfulLabel]:
    """Labels that a ridge trained on the other folds does not believe, the most doubtful first."""
    from featurecache.classify.evaluation.label_errors import find_doubtful, held_out_proba
    from featurecache.classify.selection.splits import assign_folds

    n_folds = min(N_FOLDS, len(np.unique(labelled.units)))
    if n_folds < 2:
        return []
    proba = held_out_proba(X, labelled.y, assign_folds(labelled.units, labelled.y, n_folds, seed=seed))
    doubt = find_doubtful(proba, labelled.y)
    return [
        {
            **member_row(labelled, int(i)),
            "suggested": printable(labelled.classes[suggested]),
            "label_probability": round(float(own), 4),
            "suggested_probability": round(float(other), 4),
        }
        for i, suggested, own, other in zip(
            doubt.rows, doubt.suggested, doubt.label_proba, doubt.suggested_proba, strict=True
        )
    ]


def outliers(labelled: Labelled, X: NDArray[np.float32], progress: Progress, *, seed: int) -> list[Outlier]:
    """Images whose tenth neighbour is unusually far, the farthest first."""
    from featurecache.classify.evaluation.similarity import isolation

    k = min(N_NEIGHBOURS, len(X) - 1)
    distance = isolation(
        X, k, seed=seed, on_progress=lambda done, total: progress.counting("outliers", "images", done, total)
    )
    score = robust_z(np.log(np.maximum(distance, np.finfo(np.float32).eps)))
    rows = np.flatnonzero(score > FAR)
    typical = round(float(np.median(distance)), 4)
    return [
        {**member_row(labelled, int(i)), "distance": round(float(distance[i]), 4), "typical_distance": typical}
        for i in rows[np.argsort(-distance[rows], kind="stable")]
    ]


def robust_z(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Distances from the median in robust standard deviations (N,); zero where more than half of all are equal."""
    centred = values - np.median(values)
    spread = np.median(np.abs(centred)) / MAD_TO_SIGMA
    return np.asarray(centred / spread if spread > 0 else np.zeros_like(centred))


def small_classes(labelled: Labelled) -> list[SmallClass]:
    """Classes with fewer than ten test images, the smallest first."""
    counts = {split: Counter(labelled.y[labelled.rows(split)].tolist()) for split in SPLITS}
    codes = sorted(range(len(labelled.classes)), key=lambda code: counts["test"][code])
    return [
        {
            "label": printable(labelled.classes[code]),
            "n_train": counts["train"][code],
            "n_val": counts["val"][code],
            "n_test": counts["test"][code],
        }
        for code in codes
        if counts["test"][code] < FEW_TEST_IMAGES
    ]
