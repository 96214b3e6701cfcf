"""The two stages joined again: F(x) = T(P(x)) on any images, with a head that a run saved."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.defaults import DEFAULT_CACHE
from featurecache.base.errors import RequestError, UsageError
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import printable
from featurecache.base.values import refuse
from featurecache.extract.images.manifest import Manifest, Sample, no_manifest
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.vectors.origin import is_of_vectors
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import Settings
from featurecache.features.file_vectors import check_are_images, find_vectors
from featurecache.features.new_images import FoundFeatures, JoinedImages, NewImages, in_all
from featurecache.features.saved_with_head import HeadMeta, head_meta
from featurecache.runs.documents import FeatureRow, HeadRow
from featurecache.runs.file_counts import FileCounts, count_files
from featurecache.runs.folder import CONFIG_FILE
from featurecache.runs.head_choice import choose_head, features_of, members_of, metric_of
from featurecache.runs.moved import find_cache, missing_cache_note
from featurecache.runs.record_checks import damaged, need, read_config, read_results, saved_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.classify.heads.saving.folder import LoadedHead


@dataclass(frozen=True)
class Predictions:
    """One label per image: `codes` (N,) into classes, `proba` (N, C).

    samples are the images that have one; files: how many there are, and all others by reason.
    """

    head: str
    classes: list[str]
    samples: tuple[Sample, ...]
    codes: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    files: FileCounts

    def rows(self) -> list[tuple[str, str, float]]:
        """Path, label and its probability, an image a row."""
        return [
            (sample.name, self.classes[code], float(row[code]))
            for sample, code, row in zip(self.samples, self.codes, self.proba, strict=True)
        ]

    def table(self) -> tuple[list[str], Iterator[list[object]]]:
        """Return the columns and rows of a table: path, label, its probability, and the probability of every class.

        A class that is called like one of the first three columns has "class " before its name.
        """
        columns = ["path", "label", "probability"]
        columns += [f"class {name}" if name in columns else name for name in self.classes]
        rows = zip(self.rows(), self.proba, strict=True)
        return columns, ([*row, *map(float, proba)] for row, proba in rows)

    def accuracy(self) -> tuple[int, int]:
        """Return how many images are right of those with a label that the head has, and how many these are.

        `unknown_labels` counts the others.
        """
        known = set(self.classes)
        pairs = zip(map(_label_of, self.samples), self.codes, strict=True)
        labelled = [(label, self.classes[code]) for label, code in pairs if label in known]
        return sum(label == predicted for label, predicted in labelled), len(labelled)

    def unknown_labels(self) -> dict[str, int]:
        """Return {label: number of images} of the labels that the head does not have, the most frequent first."""
        known = set(self.classes)
        labels = Counter(label for label in map(_label_of, self.samples) if label and label not in known)
        return dict(labels.most_common())


def _label_of(sample: Sample) -> str:
    """Return the label of an image by the name that it is printed with, as heads keep it; empty for none."""
    return printable(sample.label) if sample.label else ""


class Predictor:
    """A saved head and the features that it takes: F(x) = T(P(x)).

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
        progress: Progress | None = None,
    ) -> Predictor:
        """Load a head of a run, the best on val unless named.

        weights: the file of the run's weights where it has moved; it is checked by their digest before it is used.
        cache_root: where features are kept, the run's cache unless named. trust_head: use a scikit-learn classifier
        even if its arrays could crash the process, see `classify.heads.saving.folder`.

        Raises UsageError for a folder that is no run or a head it does not have, PipelineError for a damaged run,
        SavedHeadError for a head that is damaged or must not be loaded.
        """
        run, progress = Path(run), progress or Silent()
        results = read_results(run)
        chosen = choose_head(results["heads"], head, metric=metric_of(results))
        config = read_config(run)
        is_cached = not is_of_vectors(features_of(chosen))
        features = results.get("features", [])
        root = cache_root or (recorded_cache(run, config, progress, features=features) if is_cached else DEFAULT_CACHE)
        members = members_of(results["heads"], chosen)
        heads = [cls(run, each, root, trust_head=trust_head, weights=weights) for each in members or [chosen]]
        found = EnsemblePredictor(f"{chosen['name']} on {features_of(chosen)}", heads) if members else heads[0]
        found.reading = ReadOptions.from_dict(config.get("reading", {}))
        for note in (note for head in heads for note in head._loaded.notes):
            progress.say(note)
        return found

    def predict(
        self, images: Manifest, *, settings: Settings | None = None, progress: Progress | None = None
    ) -> Predictions:
        """Label images, whose features are kept in the cache, or vectors from a file.

        The backbone is loaded only where the cache lacks an image, or has features of it by an older version that read
        it otherwise; where it cannot be loaded, those features are used, with a line. Raises CacheError when the
        backbone of this machine is not the one that the head was trained on, RequestError for what is no Manifest.
        """
        refuse(RequestError, no_manifest(images))
        progress = progress or Silent()
        for note in images.notes:
            progress.say(note)
        wanted = self._found(images, settings or Settings(), progress)
        codes, proba = self._answers(wanted)
        files = count_files(images, wanted.samples, wanted.refusals, needs_labels=False)
        return Predictions(self.name, self.classes, wanted.samples, codes, proba, files)

    def _answers(self, wanted: FoundFeatures) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        """The labels (N,) and probabilities (N, C) of samples by their features."""
        import numpy as np

        from featurecache.classify.evaluation.calibration import temper_head
        from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY

        if not wanted.samples:  # no head of scikit-learn takes no rows at all
            return np.empty(0, np.int64), np.empty((0, len(self.classes)))
        X = wanted.cache.lookup(wanted.digests)
        codes, proba = self._loaded.head.predict_both(X)
        # Runs that do not name a floor tempered probabilities with this one.
        floor = SMALLEST_PROBABILITY if self._meta.tempering_floor is None else self._meta.tempering_floor
        return codes, temper_head(self._loaded.head, X, proba, self._meta.tempering, floor=floor)

    def _found(self, images: Manifest, settings: Settings, progress: Progress) -> FoundFeatures:
        """The features of a data set: those of its images, or its own vectors where these are the features."""
        known = self.name, self._meta.request.backbone, self.spec
        if images.vectors is not None:
            return find_vectors(*known, images, progress)
        check_are_images(*known, images)
        return self._images.find(images, settings, progress)


class EnsemblePredictor(Predictor):
    """The mean probability of several saved heads, each on its own features.

    The attributes are those of the first, the best on val; name: of the ensemble.
    """

    def __init__(self, name: str, heads: Sequence[Predictor]) -> None:
        vars(self).update(vars(heads[0]))
        self.name, self._heads = name, heads

    def predict(
        self, images: Manifest, *, settings: Settings | None = None, progress: Progress | None = None
    ) -> Predictions:
        """Label images or vectors as a single head does; those that lack the features of one head are left out."""
        import numpy as np

        refuse(RequestError, no_manifest(images))
        progress = progress or Silent()
        for note in images.notes:
            progress.say(note)
        of_key: dict[str, FoundFeatures] = {}
        for head in self._heads:
            if head.spec.key not in of_key:
                of_key[head.spec.key] = head._found(images, settings or Settings(), progress)
        found = in_all(list(of_key.values()))
        of_key = dict(zip(of_key, found, strict=True))
        proba = np.mean([head._answers(of_key[head.spec.key])[1] for head in self._heads], axis=0)
        codes = proba.argmax(axis=1).astype(np.int64)
        files = count_files(images, found[0].samples, found[0].refusals, needs_labels=False)
        return Predictions(self.name, self.classes, found[0].samples, codes, proba, files)


def check_one_file(weights: str | None, meta: HeadMeta) -> None:
    """Raise UsageError for a file of weights and a head on joined features, which have several."""
    if weights is not None:
        raise UsageError(
            f"The head takes features of {len(meta.parts)} backbones, {meta.request.backbone}, and --weights names one "
            "file. Put the files next to the run, where they are found by their digests."
        )


def check_head(place: Path, loaded: LoadedHead, meta: HeadMeta) -> None:
    """Raises PipelineError where what was saved with a head is not about that head: its classes, its features."""
    head, path = loaded.head, place / "head.json"
    codes = head.classes_.tolist()
    if not all(type(code) is int and 0 <= code < len(meta.classes) for code in codes):
        raise damaged(path, f"its head has {len(codes)} classes, which have other names or none")
    if head.n_features_in_ != meta.spec.feature_dim:
        dim = meta.spec.feature_dim
        raise damaged(path, f"its head takes {head.n_features_in_} columns, and its features have {dim}")


def recorded_cache(
    run: Path, config: Mapping[str, Any], progress: Progress, *, features: Sequence[FeatureRow] = ()
) -> Path:
    """The cache that a run has its features in, wherever that is now; else the usual one. A line says what is not here.

    A run from elsewhere names a folder of another machine: nothing is made there. features: those of results.json.
    """
    need(run / CONFIG_FILE, config, ["cache"])
    recorded = Path(config["cache"])
    found = find_cache(run, recorded, features)
    if note := missing_cache_note(recorded, found):
        progress.say(note)
    return found or DEFAULT_CACHE
