"""The application of a run: its model now, its training images as soon as they are read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread, local
from typing import TYPE_CHECKING, Any

from featurecache.base.cores import count_cores
from featurecache.base.progress import LOGGER, Progress, Silent
from featurecache.extract.images.decoding.resizing import load_torch_aside, torch_is_loaded
from featurecache.extract.job.compute import MAX_DECODERS, use_threads
from featurecache.extract.job.settings import Settings
from featurecache.serve.access import Access
from featurecache.serve.application import Application
from featurecache.serve.limits import Limits
from featurecache.serve.metrics import Metrics
from featurecache.serve.model import Answers

if TYPE_CHECKING:
    from featurecache.features.feature_set import Source
    from featurecache.predictor import Predictor
    from featurecache.serve.nearest import Neighbours


class PredictorModel:
    """A predictor as a model to be served; its engines are started. has_features: whether answers have features."""

    def __init__(self, predictor: Predictor, *, has_features: bool) -> None:
        self._predictor, self._has_features = predictor, has_features
        self.name, self.classes = predictor.name, predictor.classes
        self.batch_size, self.n_lanes = predictor.batch_size, predictor.n_lanes
        n_cores = count_cores()
        # An engine with fewer lanes than cores would wait for one thread that decodes.
        self.n_decoders = min(MAX_DECODERS, n_cores) if self.n_lanes < n_cores else 0
        self._share = max(1, n_cores // self.n_lanes)
        self._threads = local()
        load_torch_aside()

    def prepared(self, images: Sequence[bytes]) -> Sequence[Any]:
        """Return the pixels of image files, or why one is refused."""
        if not hasattr(self._threads, "is_limited") and torch_is_loaded():
            use_threads(1 if self.n_decoders else self._share)
            self._threads.is_limited = True
        return self._predictor.prepared(images)

    def answers(self, batch: Sequence[Any]) -> Answers:
        """Return the answers of prepared images."""
        if not self._has_features:
            return Answers(*self._predictor.answers(batch))
        return Answers(*self._predictor.answers_and_features(batch))


@dataclass(frozen=True)
class Service:
    """What is served, and how; it may be passed to another process.

    run: a run folder, or an exported file. head, weights, cache_root, trust_head: as `Predictor.load` takes them.
    settings: of the engine.
    backbones: functions of the user that networks may be had from. has_nearest, has_thumbnails: whether training
    images, and pictures of them, are shown.
    """

    run: Path
    head: str | None = None
    weights: str | None = None
    cache_root: Path | None = None
    trust_head: bool = False
    settings: Settings = field(default_factory=lambda: Settings(on_error="fail"))
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    backbones: tuple[str, ...] = ()
    has_nearest: bool = True
    has_thumbnails: bool = True

    def application(self, metrics: Metrics, progress: Progress | None = None) -> Application:
        """Return the application, which answers; training images come in a thread. Raises what `Predictor.load` does.

        progress: gets lines on the engine.
        """
        from featurecache.extract.backbones.libraries.own_network import permit
        from featurecache.predictor import Predictor

        permit(self.backbones)
        progress = progress or Silent()
        predictor = Predictor.load(
            self.run,
            head=self.head,
            weights=self.weights,
            cache_root=self.cache_root,
            trust_head=self.trust_head,
            settings=self.settings,
            progress=progress,
        )
        has_nearest = self.has_nearest and self.run.is_dir()  # an exported file has no training images
        for line in predictor.start(progress):
            progress.say(line)
        application = Application(
            PredictorModel(predictor, has_features=has_nearest), limits=self.limits, access=self.access, metrics=metrics
        )
        Thread(target=prepare_few, args=(predictor,), daemon=True).start()
        if has_nearest:
            Thread(target=self._add_neighbours, args=(application, predictor), daemon=True).start()
        return application

    def _add_neighbours(self, application: Application, predictor: Predictor) -> None:
        """Load the training images, and log why there are none."""
        found, why = self.neighbours(predictor)
        application.neighbours = found
        if why:
            logging.getLogger(LOGGER).warning(why)

    def neighbours(self, predictor: Predictor) -> tuple[Neighbours | None, str]:
        """Return the training images of the run, or None and a sentence on why there are none."""
        from featurecache.runs.moved import config_of_now
        from featurecache.runs.record_checks import read_config, read_results
        from featurecache.serve.nearest import load_neighbours

        config = None
        if self.has_thumbnails:
            config = config_of_now(self.run, read_config(self.run), read_results(self.run).get("features", []))
        return load_neighbours(self.run, source_of(predictor), config, has_thumbnails=self.has_thumbnails)


def prepare_few(predictor: Predictor) -> None:
    """Let a lone image be computed on all cores, and log for which networks that is not possible."""
    for sentence in predictor.prepare_few():
        logging.getLogger(LOGGER).warning(sentence)


def source_of(predictor: Predictor) -> Source:
    """Return where the features that a head takes are kept."""
    from featurecache.extract.cache.store import FeatureCache
    from featurecache.features.joined import Joined

    root, parts = predictor.cache_root, predictor.parts
    if not parts:
        return FeatureCache(root, predictor.spec)
    return Joined.of(parts, [FeatureCache(root, part.spec) for part in parts])
