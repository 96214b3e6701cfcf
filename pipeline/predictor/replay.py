"""Images of a run once more, by the whole path that serves new ones, compared with what its cache and the run have.

image file -> decode -> transform -> network -> head      and      cached features -> head, predictions of the run
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import PipelineError
from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.images.read import read_images
from featurecache.extract.images.sources import read_sample
from featurecache.runs.folder import PREDICTIONS_FILE
from featurecache.runs.head_choice import choose_head, features_of, metric_of
from featurecache.runs.moved import find_images
from featurecache.runs.predictions_file import Answer, read_answers
from featurecache.runs.reading import reading_run
from featurecache.runs.record_checks import read_config, read_results
from featurecache.runs.split_list import ListedImage, read_splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.predictor.predictor import Predictor

# What engines, and images computed together or apart, may differ by.
MOST_OF_FEATURES = 1e-4
# Images whose files and pixels are in memory at once.
BLOCK_IMAGES = 256

GONE, CHANGED = "its file is not where the run saw it", "its file has changed since the run"
NOT_CACHED = "the cache has no features of it"


@dataclass
class Largest:
    """The largest difference so far, and the image that it is of."""

    value: float = 0.0
    image: str = ""

    def take(self, values: NDArray[np.floating[Any]], names: Sequence[str]) -> None:
        """Take the differences of some images (N,); one that is NaN is the largest."""
        if not len(values):
            return
        worst = int(np.argmax(np.nan_to_num(values, nan=np.inf)))
        if not self.image or not values[worst] <= self.value:
            self.value, self.image = float(values[worst]), names[worst]

    def to_dict(self) -> dict[str, Any]:
        """Return both as JSON."""
        return {"value": self.value, "image": printable(self.image)}


@dataclass
class Replay:
    """How far the serving path agrees with the cache and with the run.

    n_drawn: images that were drawn. left_out: {image: why it could not be compared}. features: by backbone,
    |x - y| / |y| of fresh features x and cached ones y. probabilities: of the head on both. other_labels: images whose
    labels differ. tested, other_tested: the same of fresh features and of the predictions in the run, of its test
    images.
    """

    head: str
    n_drawn: int
    n_compared: int = 0
    n_tested: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    features: dict[str, Largest] = field(default_factory=dict)
    probabilities: Largest = field(default_factory=Largest)
    other_labels: list[str] = field(default_factory=list)
    tested: Largest = field(default_factory=Largest)
    other_tested: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether all labels are equal, and features within 1e-4 relative."""
        near = all(each.value <= MOST_OF_FEATURES for each in self.features.values())
        return near and not self.other_labels and not self.other_tested

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "head": self.head,
            "agrees": self.agrees,
            "n_drawn": self.n_drawn,
            "n_compared": self.n_compared,
            "left_out": [
                {"path": printable(name), "reason": printable(reason)} for name, reason in self.left_out.items()
            ],
            "features": {name: each.to_dict() for name, each in self.features.items()},
            "probabilities": self.probabilities.to_dict(),
            "other_labels": list(map(printable, self.other_labels)),
            "n_tested": self.n_tested,
            "tested": self.tested.to_dict(),
            "other_tested": list(map(printable, self.other_tested)),
        }


def replay_run(
    run: Path,
    predictor: Predictor,
    *,
    n: int,
    seed: int = 0,
    head: str | None = None,
    images: str | None = None,
    progress: Progress,
) -> Replay:
    """Draw n images of a run and label them as new ones are; compare features, labels and probabilities.

    predictor: of this run and head. images: where the images of the run are now, if elsewhere. Raises PipelineError
    where they are not found, or none of them could be compared; UsageError for a run on vectors.
    """
    predictor._networks(None, progress)  # raises where it takes no images
    with reading_run(run):
        listed = read_splits(run)
    drawn = [listed[i] for i in sorted(np.random.default_rng(seed).permutation(len(listed))[:n])]
    files = _files(run, predictor, images, [each.path for each in drawn])
    tested = _tested(run, head, {each.digest for each in drawn})
    replay = Replay(predictor.name, len(drawn))
    comparison = _Comparison(replay, predictor, tested)
    for start in range(0, len(drawn), BLOCK_IMAGES):
        comparison.add(drawn[start : start + BLOCK_IMAGES], files)
        progress.counting("replaying", "images", min(start + BLOCK_IMAGES, len(drawn)), len(drawn))
    if not replay.n_compared:
        name, reason = next(iter(replay.left_out.items()))
        raise PipelineError(
            f"None of {len(drawn):,} images could be compared; the first, '{printable(name)}': {printable(reason)}. "
            "Name the images with --images, or the cache with --cache, where these have moved."
        )
    return replay


def _files(run: Path, predictor: Predictor, images: str | None, names: Sequence[str]) -> dict[str, str]:
    """Return the paths of images by the names that the run has of them. Raises PipelineError where none is found."""
    place = images or find_images(run, read_config(run), names)
    if place is None or not os.path.exists(place):  # noqa: PTH110 (names that are too long)
        raise PipelineError(
            f"The images of the run '{printable(run)}' are not where it saw them. Name them with --images."
        )
    wanted = set(names)
    samples = read_images(place, predictor.reading).samples
    return {name: each.path for each in samples if (name := printable(each.name)) in wanted}


def _tested(run: Path, head: str | None, digests: set[str]) -> Mapping[str, Answer]:
    """Return what the run predicted of its test images, by digest; empty where it has no predictions."""
    if not (run / PREDICTIONS_FILE).exists():
        return {}
    results = read_results(run)
    chosen = choose_head(results["heads"], head, metric=metric_of(results))
    with reading_run(run):
        return read_answers(run, head=chosen["name"], features=features_of(chosen), digests=digests)


class _Comparison:
    """The differences of the images so far, block by block."""

    def __init__(self, replay: Replay, predictor: Predictor, tested: Mapping[str, Answer]) -> None:
        self._replay, self._predictor, self._tested = replay, predictor, tested
        self._parts = predictor.kept()

    def add(self, block: Sequence[ListedImage], files: Mapping[str, str]) -> None:
        """Label some images both ways, and take their differences."""
        present, contents = self._contents(block, files)
        skipped: dict[int, str] = {}
        fresh = self._predictor._networks().vectors(contents, skipped=skipped)
        for i, reason in skipped.items():
            self._replay.left_out[present[i].path] = reason
        kept = [i for i in range(len(present)) if i not in skipped]
        if kept:
            self._compare([present[i] for i in kept], {key: rows[kept] for key, rows in fresh.items()})

    def _contents(
        self, block: Sequence[ListedImage], files: Mapping[str, str]
    ) -> tuple[list[ListedImage], list[bytes]]:
        """Return the images that are as the run saw them and have cached features, and the bytes of their files."""
        digests = _digests(block)
        is_cached = ~np.any([cache.missing(digests) for cache in self._parts.values()], axis=0)
        present, contents = [], []
        for image, has_features in zip(block, is_cached, strict=True):
            data = _read(files.get(image.path))
            reason = "" if has_features else NOT_CACHED
            if data is None:
                reason = GONE
            elif image_digest(data).hex() != image.digest:
                reason = CHANGED
            if reason or data is None:
                self._replay.left_out[image.path] = reason
            else:
                present.append(image)
                contents.append(data)
        return present, contents

    def _compare(self, images: Sequence[ListedImage], fresh: dict[str, NDArray[np.float32]]) -> None:
        replay, names, digests = self._replay, [image.path for image in images], _digests(images)
        cached = {key: cache.lookup(digests) for key, cache in self._parts.items()}
        for key, cache in self._parts.items():
            size = np.linalg.norm(cached[key], axis=1)
            away = np.linalg.norm(fresh[key] - cached[key], axis=1) / np.where(size > 0, size, 1)
            replay.features.setdefault(cache.spec.backbone, Largest()).take(away, names)
        codes, proba = self._predictor._answers_to(fresh)
        cached_codes, cached_proba = self._predictor._answers_to(cached)
        replay.n_compared += len(images)
        replay.probabilities.take(np.abs(proba - cached_proba).max(axis=1), names)
        replay.other_labels += [names[i] for i in np.flatnonzero(codes != cached_codes)]
        tested = [i for i, image in enumerate(images) if image.digest in self._tested]
        own = [self._tested[images[i].digest] for i in tested]
        replay.n_tested += len(tested)
        if tested:
            away = np.abs(proba[tested] - np.stack([each.proba for each in own])).max(axis=1)
            replay.tested.take(away, [names[i] for i in tested])
        labels = self._predictor.classes
        replay.other_tested += [names[i] for i, each in zip(tested, own, strict=True) if labels[codes[i]] != each.label]


def _read(path: str | None) -> bytes | None:
    """Return the bytes of a file; None where it is not there."""
    try:
        return None if path is None else read_sample(path)
    except OSError:
        return None


def _digests(images: Sequence[ListedImage]) -> NDArray[np.uint8]:
    return np.array([list(bytes.fromhex(each.digest)) for each in images], dtype=np.uint8).reshape(-1, 32)
