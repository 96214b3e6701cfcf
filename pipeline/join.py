"""Cached features and labels, joined by image digest: the only place where both meet."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract.cache import FeatureCache
from extract.decode import DECODE_VERSION
from extract.digests import Refusal, digest_samples
from extract.manifest import Manifest, Sample, printable
from extract.memo import Memo
from extract.request import FeatureRequest, Resolved, recall
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Labelled:
    """The samples that have a label and are not refused: N samples, digests (N, 32), y (N,) codes into classes."""

    samples: tuple[Sample, ...]
    digests: NDArray[np.uint8]
    y: NDArray[np.int64]
    classes: list[str]
    splits: NDArray[np.str_]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """Which samples stand in these splits."""
        return np.flatnonzero(np.isin(self.splits, splits))


@dataclass(frozen=True)
class Features:
    """The features of one backbone: X (N, D) float32, row i for sample i, and what they cost."""

    request: FeatureRequest
    resolved: Resolved
    X: NDArray[np.float32]
    extract_seconds: float
    images_per_second: float


def label_samples(
    manifest: Manifest, memo: Memo, *, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> Labelled:
    """Digest, leave out what has no label or is refused, and split. Raises PipelineError or ClassifyError."""
    from classify.splits import assign_splits

    digested = digest_samples(manifest.samples, memo, on_progress=on_progress)
    refused = memo.refusals(DECODE_VERSION)
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
    if not kept:
        raise PipelineError(
            f"None of the {len(manifest):,} images in '{printable(manifest.root)}' has a label. "
            "Put them into one folder per class, or write a manifest with the columns path and label."
        )
    notes = [f"{n_unlabelled} images without a label are left out."] if n_unlabelled else []
    samples, digests = tuple(digested.samples[i] for i in kept), digested.digests[kept]
    classes = sorted({str(sample.label) for sample in samples})
    code = {name: i for i, name in enumerate(classes)}
    y = np.array([code[str(sample.label)] for sample in samples], dtype=np.int64)
    splits = assign_splits(
        digests,
        y,
        given=[s.split for s in samples] if any(s.split for s in samples) else None,
        groups=[s.group or s.name for s in samples] if any(s.group for s in samples) else None,
        seed=seed,
        classes=[printable(name) for name in classes],
    )
    return Labelled(samples, digests, y, classes, splits, tuple(refusals), tuple(notes))


def look_up(
    labelled: Labelled, requests: Sequence[FeatureRequest], *, images: str, cache_root: Path, memo: Memo
) -> list[Features]:
    """The features of every labelled sample for every request, from the cache alone.

    Raises PipelineError with the command to run when a row is missing: a backbone is never loaded here.
    """
    found = [_recall_cache(request, cache_root, memo) for request in requests]
    absent = [
        request
        for request, cache in zip(requests, found, strict=True)
        if cache is None or cache[1].missing(labelled.digests).any()
    ]
    if absent:
        names = " and ".join(request.backbone for request in absent)
        raise PipelineError(
            f"Not every image has features of {names} in '{cache_root}'. Run first:\n"
            + "\n".join(extract_command(images, request, cache_root) for request in absent)
        )
    return [_features(labelled, request, *cache) for request, cache in zip(requests, found, strict=True) if cache]


def _recall_cache(request: FeatureRequest, cache_root: Path, memo: Memo) -> tuple[Resolved, FeatureCache] | None:
    resolved = recall(request, memo)
    return None if resolved is None else (resolved, FeatureCache(cache_root, resolved.spec))


def _features(labelled: Labelled, request: FeatureRequest, resolved: Resolved, cache: FeatureCache) -> Features:
    X = cache.lookup(labelled.digests)
    records = cache.records()
    seconds = sum(float(record.get("seconds", 0.0)) for record in records)
    n = sum(int(record["n"]) for record in records)
    return Features(request, resolved, X, round(seconds / n * len(X), 3), round(n / seconds if seconds else 0.0, 2))


def extract_command(images: str, request: FeatureRequest, cache_root: Path) -> str:
    """The command that would fill the missing rows."""
    words = ["featurecache", "extract", images]
    for option, value in asdict(request).items():
        if value is not None and value != getattr(FeatureRequest(), option):
            words += [f"--{option}", value]
    if str(cache_root) != "data/cache":
        words += ["--cache", str(cache_root)]
    return shlex.join(words)
