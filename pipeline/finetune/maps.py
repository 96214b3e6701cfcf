"""Feature maps of batches: read from the cache, or computed from the images every time.

Both give the same numbers, so which of them it is decides about time and disk only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from featurecache.base.cores import count_cores
from featurecache.base.errors import ImageRefused, PipelineError
from featurecache.base.text import printable
from featurecache.extract.cache.spec import FULL_RANGE, REDUCED
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import View, apply_view
from featurecache.extract.images.decode import decode_picture
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.decoding.memory import DECODING
from featurecache.extract.images.loader import load_ahead
from featurecache.extract.images.sources import open_checked
from featurecache.extract.images.transform import apply_transform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.cache.store import FeatureCache
    from featurecache.extract.engines.protocol import Engine
    from featurecache.extract.images.manifest import Sample
    from featurecache.features.feature_arrays import FeatureArrays

# Batches that are ready before they are needed: one is trained on, one waits.
N_AHEAD = 2
CHANGED = "it changed while the training went on"


@dataclass(frozen=True)
class Batch:
    """Some images: rows (B,) into the data set, and the number of the view (B,) of each."""

    rows: NDArray[np.int64]
    views: NDArray[np.int64]


class Maps(Protocol):
    """The maps of a data set, batch by batch."""

    def batches(self, order: Sequence[Batch]) -> Iterator[Tensor]:
        """The maps (B, D) of every batch, in order; float16 or float32, or uint8 pixels."""
        ...


class CachedMaps:
    """Maps from the cache, an array (N, D) for each view, in memory or in a file."""

    def __init__(self, arrays: Sequence[NDArray[np.floating]]) -> None:
        self.arrays = arrays

    @classmethod
    def load(cls, caches: Sequence[FeatureCache], digests: NDArray[np.uint8], arrays: FeatureArrays) -> CachedMaps:
        """Read all maps of images (N, 32) once, from the cache of each view."""
        return cls([arrays.load(cache, digests, dtype=cache.spec.dtype) for cache in caches])

    def batches(self, order: Sequence[Batch]) -> Iterator[Tensor]:
        """See `Maps`."""
        with closing(load_ahead(order, self._read, n_threads=1, n_ahead=N_AHEAD)) as loaded:
            yield from loaded

    def _read(self, batch: Batch) -> Tensor:
        maps = np.empty((len(batch.rows), self.arrays[0].shape[1]), dtype=self.arrays[0].dtype)
        for view in np.unique(batch.views):
            here = batch.views == view
            maps[here] = self.arrays[view][batch.rows[here]]
        return torch.from_numpy(maps)


@dataclass(frozen=True)
class ComputedMaps:
    """Maps from the images: read, decoded and fitted, and run through the lower part where there is one.

    views: the view behind each number; the first is None, for the image itself. dtype: what the maps are rounded to.
    decode, levels: as `decode` and `range` of a request.
    """

    samples: Sequence[Sample]
    digests: NDArray[np.uint8]
    views: Sequence[View | None]
    transform: TransformSpec
    decode: str
    engine: Engine | None
    dtype: str
    max_pixels: int = MAX_PIXELS
    levels: str = FULL_RANGE

    def batches(self, order: Sequence[Batch]) -> Iterator[Tensor]:
        """See `Maps`. Raises PipelineError where an image has changed or gone since it was hashed."""
        with (
            ThreadPoolExecutor(count_cores(), thread_name_prefix="decode") as pool,
            closing(load_ahead(order, lambda b: self._pixels(b, pool), n_threads=1, n_ahead=N_AHEAD)) as loaded,
        ):
            for pixels in loaded:
                if self.engine is None:
                    yield pixels
                else:
                    yield torch.from_numpy(self._rounded(self.engine.run(pixels)))

    def _pixels(self, batch: Batch, pool: ThreadPoolExecutor) -> Tensor:
        return torch.stack(list(pool.map(self._one, batch.rows.tolist(), batch.views.tolist())))

    def _rounded(self, maps: NDArray[np.float32]) -> NDArray[np.floating]:
        with np.errstate(over="ignore"):
            rounded = maps.astype(self.dtype, copy=False)
        if not np.isfinite(rounded).all():
            raise PipelineError(f"The maps of some images overflow {self.dtype}: use --dtype float32.")
        return rounded

    def _one(self, row: int, number: int) -> Tensor:
        sample, digest, view = self.samples[row], bytes(self.digests[row]), self.views[number]
        at_least = self.transform.resize if self.decode == REDUCED else None
        try:
            with open_checked(sample.path, digest, changed=CHANGED) as file, DECODING.reservation() as reserved:
                picture = decode_picture(
                    file, max_pixels=self.max_pixels, at_least=at_least, levels=self.levels, reserve=reserved.reserve
                )
                image = apply_transform(picture, self.transform)
        except (OSError, ImageRefused) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise PipelineError(
                f"'{printable(sample.name)}' cannot be trained on any more: {reason}. Put it back, and give the same "
                "command with --resume."
            ) from error
        return image if view is None else apply_view(image, view, digest)


def in_order(rows: NDArray[np.int64], size: int) -> list[Batch]:
    """Batches of these rows in their order, without augmentation."""
    return [Batch(part, np.zeros(len(part), dtype=np.int64)) for part in _cut(rows, size)]


def shuffled(rows: NDArray[np.int64], n_views: int, size: int, *, seed: int, epoch: int) -> list[Batch]:
    """The batches of one epoch: the rows in an order of their own, each in its next view.

    The first view of an image is drawn once, and the others follow: in `n_views` epochs it is seen in each.
    """
    first = np.random.default_rng([seed, 0]).integers(0, n_views, len(rows))
    order = np.random.default_rng([seed, 1, epoch]).permutation(len(rows))
    views = (first + epoch) % n_views
    return [Batch(rows[part], views[part]) for part in _cut(order, size)]


def _cut(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Parts of `size` rows; a single one that is left joins the part before, for one image has no batch statistics."""
    starts = list(range(0, len(rows), size))
    if len(rows) % size == 1 and len(starts) > 1:
        starts.pop()
    return np.split(rows, starts[1:])
