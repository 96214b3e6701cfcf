"""The training images whose features are nearest to those of an image, by the Euclidean distance.

A request names a training image by its number in the list of the run, never by a path.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import CacheError, FeatureCacheError
from featurecache.base.text import printable
from featurecache.report.pictures import JPEG_QUALITY, read_thumbnails
from featurecache.runs.documents import Config
from featurecache.runs.split_list import ListedImage, read_splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.features.feature_set import Source

# Heads are trained on these splits; test images would show what the head has never seen.
TRAINING = ("train", "val")
# Features of more training images than this take up memory are not loaded.
MOST_BYTES = 1 << 30
THUMBNAIL_SIDE, THUMBNAIL_SECONDS = 96, 5.0
# Candidates of the fast distance, which cancels digits, for each of those that are returned by the exact one.
CANDIDATES = 4


class Neighbours:
    """The training images of a run.

    X: their features (N, D). images: their records, in order. pictures: where their files are; None for no thumbnails.
    """

    def __init__(
        self, X: NDArray[np.float32], images: Sequence[ListedImage], pictures: Mapping[str, str] | None = None
    ) -> None:
        self._X, self._images, self._pictures = X, images, pictures
        self._squares = np.einsum("nd,nd->n", X, X)
        self._lock = Lock()

    @property
    def has_thumbnails(self) -> bool:
        """Whether there are pictures of the training images."""
        return bool(self._pictures)

    def nearest(self, vector: NDArray[np.float32], n: int) -> list[dict[str, Any]]:
        """Return the n nearest training images of the features (D,) of an image: number, label and distance."""
        if not np.isfinite(vector).all():
            return []
        fast = self._squares - 2.0 * (self._X @ vector)
        n_candidates = min(len(fast), CANDIDATES * n)
        places = np.argpartition(fast, n_candidates - 1)[:n_candidates]
        distances = np.linalg.norm(self._X[places].astype(np.float64) - vector, axis=1)
        order = np.lexsort((places, distances))[:n]
        return [
            {"id": int(places[i]), "label": printable(self._images[places[i]].label), "distance": float(distances[i])}
            for i in order
        ]

    def thumbnail(self, number: int) -> bytes | None:
        """Return a picture of a training image as a JPEG; None where there is none, or its file has changed."""
        if not self._pictures or number >= len(self._images):
            return None
        image = self._images[number]
        deadline = time.monotonic() + THUMBNAIL_SECONDS
        with self._lock:  # one file at a time
            found = read_thumbnails(
                [image.path], self._pictures, {image.path: image.digest}, side=THUMBNAIL_SIDE, deadline=deadline
            )
        picture = found.pictures.get(image.path)
        if picture is None:
            return None
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()


def load_neighbours(
    run: Path, source: Source, config: Config | None, *, has_thumbnails: bool
) -> tuple[Neighbours | None, str]:
    """Return the training images of a run, or None with a sentence on why there are none.

    source: their features. config: that of the run, with the images where they are now; None for no pictures.
    """
    try:
        images = [each for each in read_splits(run) if each.split in TRAINING and len(each.digest) == 64]
        digests = np.frombuffer(bytes.fromhex("".join(each.digest for each in images)), np.uint8).reshape(-1, 32)
    except (OSError, ValueError, LookupError):
        return None, "There are no nearest training images: the list of the images of the run cannot be read."
    n_bytes = len(images) * source.spec.feature_dim * 4
    if n_bytes > MOST_BYTES:
        return None, f"There are no nearest training images: their features take {n_bytes / 1e9:.1f} GB."
    try:
        there = np.flatnonzero(~source.missing(digests)) if len(digests) else np.empty(0, np.int64)
        if not len(there):
            return None, "There are no nearest training images: their features are not in the cache of the run."
        X = source.lookup(digests[there])
    except (CacheError, OSError) as error:
        return None, f"There are no nearest training images: {error}"
    pictures = _files(config) if has_thumbnails and config is not None else None
    return Neighbours(X, [images[i] for i in there], pictures), ""


def _files(config: Config) -> dict[str, str]:
    """Return the path of each image by the name that the run has for it; empty where the images are gone."""
    from featurecache.extract.images.read import read_images
    from featurecache.report.sections.reproduce import images_of, is_on_vectors, reading_of_pictures

    if is_on_vectors(config):
        return {}
    try:
        samples = read_images(images_of(config), reading_of_pictures(config)).samples
    except (FeatureCacheError, OSError):
        return {}
    return {printable(sample.name): sample.path for sample in samples}
