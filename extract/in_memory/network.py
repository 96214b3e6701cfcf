"""The network of one kind of features, kept ready: pixels to vectors, as an extraction would store them.

The engine is the one that an extraction chooses, from the same stored graph, so that neither torch nor the weights are
loaded where that graph is there. A vector does not depend on the images that it is computed with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.errors import ImageRefused
from featurecache.base.user_folder import make_user_folder
from featurecache.extract.cache.spec import INT8, FeatureSpec
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.graph_store import SharedGraphs, Verdict
from featurecache.extract.engines.protocol import NetworkIdentity, Source
from featurecache.extract.in_memory.alike import read_all_pixels
from featurecache.extract.in_memory.items import called
from featurecache.extract.in_memory.pixels import PixelKind
from featurecache.extract.job.settings import Settings
from featurecache.extract.job.writer import overflow_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from featurecache.extract.cache.ranges import Ranges
    from featurecache.extract.engines.protocol import Engine

# Threads that decode for a GPU.
MAX_DECODERS = 16

# The pixels of one image, for each kind of them that is needed: uint8 (3, S, S).
Prepared = tuple["NDArray[np.uint8]", ...]


class GraphsOfUser(SharedGraphs):
    """The exported graphs of a user, and those next to a cache, where no folder is made for them."""

    def save(self, identity: Mapping[str, Any], verdict: Verdict, graph: bytes | None) -> bool:
        """Save both, but not where that would make the folder of a cache."""
        if self.root.is_dir():
            return super().save(identity, verdict, graph)
        if self._shared is None or not make_user_folder():
            return False
        return self._shared.save(identity, verdict, graph)


class ImageNetwork:
    """The network of one kind of features; its engine is started once, by the first that needs it.

    spec: of the features. kind: of the pixels that it takes. load: returns the module, where no graph is stored;
    ranges: in int8, the activation ranges. folder: of the cache of these features, whether it is there or not.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        folder: Path,
        load: Callable[[], nn.Module],
        *,
        settings: Settings,
        ranges: Callable[[], Ranges] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.spec, self.kind = spec, PixelKind.of(spec)
        self._folder, self._ranges = folder, ranges
        self._load: Callable[[], nn.Module] | None = load
        self._settings, self._say = settings, say or _silent
        self._engine: Engine | None = None
        self._lock = Lock()

    @property
    def engine(self) -> Engine:
        """Its engine, started. Raises BackboneError, EngineError or CacheError."""
        with self._lock:
            if self._engine is None:
                self._engine = self._started()
                self._load = None  # with what it holds, which is not needed any more
            return self._engine

    def _started(self) -> Engine:
        spec, settings, load = self.spec, self._settings, self._load
        assert load is not None, "an engine is started once"
        identity: NetworkIdentity = {
            "backbone": spec.backbone,
            "weights": spec.weights_digest,
            "cuts": [[spec.layer, spec.pooling]],
            "transform": spec.transform.to_dict(),
            "network": spec.network,
        }
        return build_engine(
            Source(identity, spec.transform.crop, load, spec.feature_dim, (slice(0, spec.feature_dim),)),
            engine=settings.engine,
            device=settings.device,
            precision=spec.precision,
            batch_size=settings.batch_size,
            graphs=GraphsOfUser(self._folder),
            ranges=self._ranges() if spec.precision == INT8 and self._ranges is not None else None,
            say=self._say,
        )

    def prepare_few(self) -> str:
        """Let few images be computed one by one on all cores, where that gives the bits of a batch in less time.

        Returns a sentence on why it does not give them; empty where it does.
        """
        from featurecache.extract.engines.onnx_engine import OnnxEngine

        engine = self.engine
        if not isinstance(engine, OnnxEngine) or not (why := engine.prepare_few()):
            return ""
        return f"{self.spec.backbone} computes a lone image as a batch of {engine.batch_size}: {why}."

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the vectors of images: uint8 (B, 3, S, S) -> float32 (B, D), rounded as the cache would store them.

        Raises ImageRefused, with the number of the row, for a vector that is not finite, EngineError, OutOfMemory.
        """
        vectors = self.engine.run(pixels)
        with np.errstate(over="ignore"):
            stored = vectors.astype(self.spec.dtype, copy=False)
        is_finite = np.isfinite(stored).all(axis=1)
        if not is_finite.all():
            row = int(is_finite.argmin())
            raise RowRefused(overflow_reason(vectors[row], self.spec), row)
        return np.asarray(stored, dtype=np.float32)


class RowRefused(ImageRefused):
    """An image of a batch whose features are not finite; row: its number in the batch."""

    def __init__(self, reason: str, row: int) -> None:
        super().__init__(reason)
        self.row = row


class ImageNetworks:
    """The networks of several kinds of features, which share the decoding of images; for any number of threads.

    networks: by the key of their spec. max_pixels: of the largest image.
    """

    def __init__(self, networks: Mapping[str, ImageNetwork], *, max_pixels: int) -> None:
        self.networks, self.max_pixels = dict(networks), max_pixels
        self.kinds = list(dict.fromkeys(each.kind for each in self.networks.values()))
        self._places = {key: self.kinds.index(each.kind) for key, each in self.networks.items()}

    def start(self) -> list[str]:
        """Start the engines, and return a line on each: which it is and why. Raises BackboneError, EngineError."""
        return list(dict.fromkeys(each.engine.reason for each in self.networks.values()))

    def prepare_few(self) -> list[str]:
        """Do what `ImageNetwork.prepare_few` does for each network, and return the sentences."""
        return list(filter(None, (each.prepare_few() for each in self.networks.values())))

    def prepare(self, items: Sequence[Any]) -> list[Prepared | ImageRefused]:
        """Return the pixels of each image for each kind, uint8 (3, S, S), or why it is refused."""
        return read_all_pixels(items, self.kinds, max_pixels=self.max_pixels)

    def run(self, prepared: Sequence[Prepared]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of B prepared images by the key of their spec: float32 (B, D) each.

        Raises what `ImageNetwork.run` does.
        """
        # Whole images have sizes of their own.
        stacks: list[Any] = [
            list(each) if kind.geometry is None else np.stack(each)
            for kind, each in zip(self.kinds, zip(*prepared, strict=True), strict=True)
        ]
        return {key: each.run(stacks[self._places[key]]) for key, each in self.networks.items()}

    def vectors(
        self, items: Sequence[Any], *, skipped: dict[int, str] | None = None, numbers: Sequence[int] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of N images by the key of their spec: float32 (N, D) each; on all cores.

        items: checked ones, as `list_items` returns them. skipped: gets the numbers of refused images with the reasons;
        their rows have no meaning. Without it the first of them is raised as an ImageRefused that names it, by numbers
        (N,) if they are given.
        """
        self.start()
        engines = [each.engine for each in self.networks.values()]
        size = max(each.batch_size for each in engines)
        found = {key: np.zeros((len(items), each.spec.feature_dim), np.float32) for key, each in self.networks.items()}

        def refuse(i: int, error: ImageRefused) -> None:
            if skipped is None:
                raise refused_item(items[i], i if numbers is None else numbers[i], error) from None
            skipped[i] = str(error)

        def fill(start: int) -> None:
            kept, vectors = self._of_chunk(items, range(start, min(start + size, len(items))), refuse)
            for key, rows in vectors.items():
                found[key][kept] = rows

        n_threads = min(MAX_DECODERS, max(count_cores(), *(each.n_lanes for each in engines)))
        if len(items) <= size:
            fill(0)
            return found
        with ThreadPoolExecutor(n_threads, "images") as pool:
            tasks = [pool.submit(fill, start) for start in range(0, len(items), size)]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def _of_chunk(
        self, items: Sequence[Any], rows: Sequence[int], refuse: Callable[[int, ImageRefused], None]
    ) -> tuple[list[int], dict[str, NDArray[np.float32]]]:
        """Return the numbers of the images of a chunk that are not refused, and their vectors."""
        kept, prepared = [], []
        for i, found in zip(rows, self.prepare([items[i] for i in rows]), strict=True):
            if isinstance(found, ImageRefused):
                refuse(i, found)
            else:
                prepared.append(found)
                kept.append(i)
        while kept:
            try:
                return kept, self.run(prepared)
            except RowRefused as error:
                refuse(kept[error.row], error)
                del kept[error.row], prepared[error.row]
        return [], {}


def refused_item(item: Any, number: int, error: ImageRefused) -> ImageRefused:
    """Return the error of a refused image among several, which names it."""
    return ImageRefused(f"{called(item, number)} is refused: {error}.")


def _silent(_: str) -> None:
    pass
