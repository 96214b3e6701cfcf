"""Predictor: a saved head and the features that it takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.defaults import DEFAULT_CACHE
from featurecache.base.errors import RequestError, UsageError
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import printable
from featurecache.base.values import refuse
from featurecache.extract.images.manifest import Manifest, no_manifest
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.vectors.origin import is_of_vectors
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import Settings
from featurecache.features.file_vectors import check_are_images, check_takes_images, find_vectors
from featurecache.features.new_images import FoundFeatures, JoinedImages, NewImages, image_networks, in_all
from featurecache.features.saved_with_head import head_meta
from featurecache.predictions.labelled import Labelled, Predictions
from featurecache.predictor.on_images import OnImages, mean_of
from featurecache.predictor.row_blocks import in_blocks, rows_of_a_block, tempered
from featurecache.predictor.saved import check_head, check_one_file, recorded_cache
from featurecache.runs.documents import HeadRow
from featurecache.runs.file_counts import count_files
from featurecache.runs.head_choice import choose_head, features_of, members_of, metric_of
from featurecache.runs.models.places import find_run, going_back
from featurecache.runs.reading import is_exported_file
from featurecache.runs.record_checks import read_config, read_results, saved_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.extract.cache.store import FeatureCache
    from featurecache.extract.in_memory.network import ImageNetworks
    from featurecache.features.feature_set import Part


class Predictor(OnImages):
    """A saved head and the features that it takes: F(x) = T(P(x)).

    It labels data sets (`predict` on a Manifest), whose features are kept in the cache, and images in memory, see
    `OnImages`, for which nothing is written. Several threads may use it.

    name: head and features. classes: their names, by code. request, spec: the features. cache_root: where they stay.
    reading: the options by which the images of the run were read.
    """

    def __init__(
        self, run: Path, chosen: HeadRow, cache_root: Path, *, trust_head: bool, weights: str | None = None
    ) -> None:
        from featurecache.classify.heads.saving.folder import load_fitted

        place = saved_folder(run, chosen)
        self._loaded = load_fitted(place, trust=trust_head)
        meta = head_meta(place, self._loaded.meta)
        check_head(place, self._loaded, meta)
        self.name = f"{chosen['name']} on {features_of(chosen)}"
        self.classes, self.spec = meta.classes, meta.spec
        self._images: NewImages | JoinedImages
        if meta.parts:
            check_one_file(weights, meta)
            self._images = JoinedImages(run, meta.request, meta.parts, cache_root)
        else:
            self._images = NewImages(run, meta.request, meta.spec, cache_root, weights=weights)
        self.cache_root = cache_root
        self.reading = ReadOptions()
        self._meta = meta
        self._set_up(None)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The features that are joined, in their order; empty for those of one backbone."""
        return self._meta.parts

    @property
    def request(self) -> FeatureRequest:
        """The request for its features, with the weights where they are now."""
        return self._images.request

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        *,
        head: str | None = None,
        weights: str | None = None,
        cache_root: Path | None = None,
        trust_head: bool = False,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> Predictor:
        """Load a head of a run, the best on val unless named; run: a folder, the name of a model, an exported file.

        weights: the file of the run's weights where it has moved; it is checked by their digest before it is used.
        cache_root: where features are kept, the run's cache unless named. trust_head: use a scikit-learn classifier
        even if its arrays could crash the process, see `classify.heads.saving.folder`. settings: engine, device and
        limits for images in memory; an image that cannot be decoded is an error unless they say `skip`.

        Raises UsageError for a folder that is no run or a head it does not have, PipelineError for a damaged run,
        SavedHeadError for a head that is damaged or must not be loaded, PipelineError for a file that is none of
        `export`.
        """
        progress = progress or Silent()
        if is_exported_file(run):
            return ExportedPredictor(Path(run), settings, others=[head, weights])
        run = find_run(run, say=progress.say)
        results = read_results(run)
        chosen = choose_head(results["heads"], head, metric=metric_of(results))
        config = read_config(run)
        is_cached = not is_of_vectors(features_of(chosen))
        features = results.get("features", [])
        root = cache_root or (recorded_cache(run, config, progress, features=features) if is_cached else DEFAULT_CACHE)
        members = members_of(results["heads"], chosen)
        with going_back(run):
            heads = [cls(run, each, root, trust_head=trust_head, weights=weights) for each in members or [chosen]]
        found = EnsemblePredictor(f"{chosen['name']} on {features_of(chosen)}", heads) if members else heads[0]
        found._set_up(settings)
        found.reading = ReadOptions.from_dict(config.get("reading", {}))
        for note in (note for head in heads for note in head._loaded.notes):
            progress.say(note)
        return found

    def predict(
        self,
        images: Manifest | Iterable[Any],
        *,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> Predictions:
        """Label a data set, whose features are kept in the cache, vectors from a file, or images in memory.

        images: a Manifest, as `read_images` and `read_arrays` return it, or items as `OnImages` says.
        For a Manifest the backbone is loaded only where the cache lacks an image, or has features of it by an older
        version that read it otherwise; where it cannot be loaded, those features are used, with a line.
        Raises CacheError when the backbone of this machine is not the one that the head was trained on, RequestError
        for what is neither.
        """
        if not isinstance(images, Manifest):
            return self._predict_items(images, settings, progress or Silent())
        return self.label(images, settings=settings, progress=progress).block(slice(None))

    def label(
        self, images: Manifest, *, settings: Settings | None = None, progress: Progress | None = None
    ) -> Labelled:
        """Find or extract the features of a data set, as `predict` does; its images are labelled as they are asked for.

        So no more than a block of vectors and probabilities is in memory. Raises what `predict` raises.
        """
        refuse(RequestError, no_manifest(images))
        progress = progress or Silent()
        for note in images.notes:
            progress.say(note)
        found = self._gathered(images, settings or Settings(), progress)
        first = next(iter(found.values()))
        files = count_files(images, first.samples, first.refusals, needs_labels=False)
        return Labelled(self.name, self.classes, first.samples, files, partial(self._answers, found))

    def _gathered(self, images: Manifest, settings: Settings, progress: Progress) -> dict[str, FoundFeatures]:
        """The features of a data set by their key."""
        return {self.spec.key: self._found(images, settings, progress)}

    def _answers(
        self, found: Mapping[str, FoundFeatures], rows: slice
    ) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        """The labels (N,) and probabilities (N, C) of some of the samples by their features."""
        wanted = found[self.spec.key]
        digests = wanted.digests[rows]
        return self._of_rows(wanted.cache.lookup(digests) if len(digests) else None)

    def _of_rows(self, X: NDArray[np.float32] | None) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        """The labels (N,) and probabilities (N, C) of features (N, D)."""
        import numpy as np

        if X is None or not len(X):  # no head of scikit-learn takes no rows at all
            return np.empty(0, np.int64), np.empty((0, len(self.classes)))
        head = self._loaded.head
        return in_blocks(X, tempered(head, self._meta.tempering, self._meta.floor), rows_of_a_block(head, len(X)))

    def _new_networks(self, settings: Settings, progress: Progress) -> ImageNetworks:
        self._check_takes_images()
        return image_networks(self._kinds(), settings, progress.say)

    def kept(self) -> dict[str, FeatureCache]:
        """Return the caches of all features that its answers need, by key."""
        return {part.spec.key: part.kept() for each in self._kinds() for part in each.parts()}

    def _kinds(self) -> list[NewImages | JoinedImages]:
        """Return the kinds of features that its heads take."""
        return [self._images]

    def _check_takes_images(self) -> None:
        check_takes_images(self.name, self._meta.request.backbone, self.spec, "images are given")

    def _columns(self, vectors: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        return self._images.columns(vectors)

    def _answers_to(
        self, vectors: dict[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        return self._of_rows(self._columns(vectors))

    def _found(self, images: Manifest, settings: Settings, progress: Progress) -> FoundFeatures:
        """The features of a data set: those of its images, or its own vectors where these are the features."""
        known = self.name, self._meta.request.backbone, self.spec
        if images.vectors is not None:
            return find_vectors(*known, images, progress)
        check_are_images(*known, images)
        return self._images.find(images, settings, progress)


class EnsemblePredictor(Predictor):
    """The mean probability of several saved heads, each on its own features.

    The attributes are those of the first, the best on val, and so are `features` and `vectors`; name: of the ensemble.
    """

    def __init__(self, name: str, heads: Sequence[Predictor]) -> None:
        vars(self).update(vars(heads[0]))
        self.name, self._heads = name, heads

    def _gathered(self, images: Manifest, settings: Settings, progress: Progress) -> dict[str, FoundFeatures]:
        """The features of every head by their key, of the samples that have those of all."""
        of_key: dict[str, FoundFeatures] = {}
        for head in self._heads:
            if head.spec.key not in of_key:
                of_key[head.spec.key] = head._found(images, settings, progress)
        return dict(zip(of_key, in_all(list(of_key.values())), strict=True))

    def _answers(
        self, found: Mapping[str, FoundFeatures], rows: slice
    ) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        return mean_of([head._answers(found, rows)[1] for head in self._heads])

    def _new_networks(self, settings: Settings, progress: Progress) -> ImageNetworks:
        for head in self._heads:
            head._check_takes_images()
        return image_networks(self._kinds(), settings, progress.say)

    def _kinds(self) -> list[NewImages | JoinedImages]:
        return [head._images for head in self._heads]

    def _answers_to(
        self, vectors: dict[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        return mean_of([head._answers_to(vectors)[1] for head in self._heads])


class ExportedPredictor(Predictor):
    """A file of `export`: it has its network, so no cache and no backbone is used, and it gives no features.

    spec: of its first features.
    """

    def __init__(self, path: Path, settings: Settings | None, *, others: Sequence[str | None]) -> None:
        if any(others):
            raise UsageError(f"'{printable(path)}' is one head with its weights: name no other head and no weights.")
        from featurecache.predictor.exported import ExportedNetwork

        self._file = ExportedNetwork(path)
        self.name, self.classes, self.spec = self._file.name, self._file.classes, self._file.specs[0]
        self.cache_root, self.reading = DEFAULT_CACHE, ReadOptions()
        self._set_up(settings)

    @property
    def request(self) -> FeatureRequest:
        """Raises UsageError: the file holds its network."""
        raise UsageError(f"The head {self.name} is a file that holds its network: it asks for no features.")

    def label(
        self, images: Manifest, *, settings: Settings | None = None, progress: Progress | None = None
    ) -> Labelled:
        """Label the images of a data set, all at once; nothing is kept in a cache. Raises what `predict` raises."""
        refuse(RequestError, no_manifest(images))
        if images.vectors is not None:
            raise UsageError(f"The head {self.name} is a file that takes images, and vectors are given. Name images.")
        progress = progress or Silent()
        for note in images.notes:
            progress.say(note)
        return self._labelled(images, settings or Settings(), progress)

    def _new_networks(self, settings: Settings, progress: Progress) -> ImageNetworks:
        return self._file.images(settings.max_pixels)

    def _columns(self, vectors: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        raise UsageError(f"The head {self.name} is a file that gives no features: load its run for them.")

    def _answers_to(
        self, vectors: dict[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        import numpy as np

        rows = vectors[""]
        return rows[:, -1].astype(np.int64), rows[:, :-1]
