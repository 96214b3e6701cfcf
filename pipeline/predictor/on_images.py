"""What a predictor does with images in memory: paths, bytes of files, PIL images and arrays, without a cache.

    items -> prepare -> pixels, uint8 (3, S, S) for each transform -> answers -> codes (B,), probabilities (B, C)

A program calls `predict`, `predict_proba`, `predict_labels` or `features` on a list of images. A server, which decodes
in one thread and runs batches in another, calls `prepared` on each image and `answers` on what is waiting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from featurecache.base.errors import ImageRefused
from featurecache.base.progress import Progress, Silent
from featurecache.extract.images.digests import Refusal
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.job.settings import Settings
from featurecache.predictions.labelled import Labelled, Predictions
from featurecache.runs.file_counts import count_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.extract.in_memory.network import ImageNetworks, Prepared

    Vectors = dict[str, NDArray[np.float32]]

# A program that asks for a label of each image gets an error for what is none; a data set may contain such files.
RAISING = Settings(on_error="fail")


class OnImages(ABC):
    """A predictor of images in memory, for any number of threads; its networks stay loaded.

    items: an iterable of N images, each a path, the bytes of an image file, a PIL image, or a uint8 array of RGB or
    grey pixels (H, W, 3) or (H, W); an array of pixels (N, H, W, 3) or (N, H, W) is one too.
    They are decoded and transformed as `extract` does it. Methods that take items raise RequestError for what is no
    image, ImageRefused that names the first image that cannot be decoded, BackboneError or EngineError where the
    network cannot run here, CacheError where it is another one than the head was trained on.

    name: head and features. classes: their names, by code. settings: of the engine, where a call names no others.
    """

    name: str
    classes: list[str]
    settings: Settings

    @abstractmethod
    def _new_networks(self, settings: Settings, progress: Progress) -> ImageNetworks:
        """Return its networks, not started. Raises UsageError for a head that takes no images."""

    @abstractmethod
    def _columns(self, vectors: Vectors) -> NDArray[np.float32]:
        """Return the features (B, D) that the head takes, of the vectors of images by key."""

    @abstractmethod
    def _answers_to(self, vectors: Vectors) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        """Return codes (B,) and probabilities (B, C) by the vectors of images by key."""

    def _set_up(self, settings: Settings | None) -> None:
        self.settings = settings or RAISING
        self._lock = Lock()
        self._by_settings: dict[Settings, ImageNetworks] = {}

    def _networks(self, settings: Settings | None = None, progress: Progress | None = None) -> ImageNetworks:
        wanted = settings or self.settings
        with self._lock:
            if wanted not in self._by_settings:
                self._by_settings[wanted] = self._new_networks(wanted, progress or Silent())
            return self._by_settings[wanted]

    def start(self, progress: Progress | None = None) -> list[str]:
        """Start the engines now, and not with the first image; return a line on each: which it is, and why."""
        return self._networks(None, progress).start()

    def prepare_few(self) -> list[str]:
        """Let few images be computed one by one on all cores, where that gives the bits of a batch in less time.

        It takes a second, and a second copy of the weights. Returns a sentence on each network that gives other bits.
        """
        return self._networks().prepare_few()

    def prepared(self, items: Sequence[Any]) -> list[Prepared | ImageRefused]:
        """Return the pixels of each image as its networks take them: uint8 (3, S, S), one array for each transform.

        For an image that is refused it is the error, whose text is the reason without a name.
        """
        return self._networks().prepare(items)

    def vectors(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        """Return the features of B prepared images: float32 (B, D)."""
        return self._columns(self._networks().run(prepared))

    def answers(self, prepared: Sequence[Prepared]) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        """Return codes (B,) into classes and probabilities (B, C) of B prepared images, B of 1 or more.

        What an image gets does not depend on the others of its batch. Raises RowRefused, with the number of the image,
        where its features are not finite, EngineError, OutOfMemory.
        """
        return self._answers_to(self._networks().run(prepared))

    def answers_and_features(
        self, prepared: Sequence[Prepared]
    ) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]], NDArray[np.float32]]:
        """Return codes (B,) and probabilities (B, C) of B prepared images, and the features (B, D) that they are by."""
        vectors = self._networks().run(prepared)
        return (*self._answers_to(vectors), self._columns(vectors))

    @property
    def batch_size(self) -> int:
        """The images that its engines take at once; they are started."""
        return max(each.engine.batch_size for each in self._networks().networks.values())

    @property
    def n_lanes(self) -> int:
        """How many threads may ask for answers at once; together they use every core."""
        return max(each.engine.n_lanes for each in self._networks().networks.values())

    def features(self, items: Iterable[Any]) -> NDArray[np.float32]:
        """Return the features that the head takes of N images: float32 (N, D)."""
        return self._columns(self._vectors_of(items))

    def predict_proba(self, items: Iterable[Any]) -> NDArray[np.floating[Any]]:
        """Return the probability of every class for N images: (N, C), columns in the order of `classes`."""
        return self._answers_to(self._vectors_of(items))[1]

    def predict_labels(self, items: Iterable[Any]) -> list[str]:
        """Return the names of the classes of N images."""
        codes, _ = self._answers_to(self._vectors_of(items))
        return [self.classes[code] for code in codes]

    def _vectors_of(self, items: Iterable[Any]) -> Vectors:
        from featurecache.extract.in_memory.items import list_items

        return self._networks().vectors(list_items(items))

    def _predict_items(self, items: Iterable[Any], settings: Settings | None, progress: Progress) -> Predictions:
        """Return the predictions of images in memory; refused ones are left out where the settings say `skip`."""
        from featurecache.extract.in_memory.items import list_items, name_of, path_of

        listed = list_items(items)
        samples = tuple(Sample(path_of(each), name_of(each, i)) for i, each in enumerate(listed))
        return self._labelled(Manifest(Path(), samples), settings, progress, listed).block(slice(None))

    def _labelled(
        self, images: Manifest, settings: Settings | None, progress: Progress, items: Sequence[Any] | None = None
    ) -> Labelled:
        """Return the images of a data set with their labels, without a cache; items: their files unless given."""
        listed, skipped = [sample.path for sample in images.samples] if items is None else items, dict[int, str]()
        skips = (settings or self.settings).on_error == "skip"
        networks = self._networks(settings, progress)
        vectors = networks.vectors(listed, skipped=skipped if skips else None)
        kept = [i for i in range(len(listed)) if i not in skipped]
        codes, proba = self._answers_to({key: rows[kept] for key, rows in vectors.items()})
        refusals = tuple(Refusal(images.samples[i].name, "", reason) for i, reason in sorted(skipped.items()))
        used = tuple(images.samples[i] for i in kept)
        files = count_files(images, used, refusals, needs_labels=False)
        return Labelled(self.name, self.classes, used, files, lambda rows: (codes[rows], proba[rows]))


def mean_of(proba: Sequence[NDArray[np.floating[Any]]]) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    """Return the codes (N,) and probabilities (N, C) of the mean of those of several heads."""
    import numpy as np

    mean = np.mean(proba, axis=0)
    return mean.argmax(axis=1).astype(np.int64), mean
