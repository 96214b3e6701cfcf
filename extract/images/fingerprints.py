"""Fingerprints: grey thumbnails, by which resized, recompressed or tonally changed copies are found.

16 x 16 means over equal areas, without their mean and at length 1, so that the product of two is their correlation,
which neither brightness nor contrast changes. On mnist5k and Fashion-MNIST the finest size at which no JPEG of quality
80 falls below a correlation of 0.99 with its original. Images with a shorter side are enlarged, bicubic: of 200 digits
of 8 x 8, enlarged to 16, 32 and 64 pixels and saved as JPEG of quality 85, all are above 0.999 then where that was
bicubic, and above 0.99 where it was bilinear or Lanczos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.cores import count_cores
from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.spec import FULL_RANGE, IMAGE_RANGE
from featurecache.extract.images.decode import decode_array
from featurecache.extract.images.loader import are_small, load_ahead
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.sources import open_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 16
N_AHEAD = 64  # images decoded in advance at most: bounds memory, and keeps the threads busy
FLAT = 1.0  # of 255: images with a smaller spread of values are plain surfaces, whose correlation is meaningless


def read_thumbnails(
    samples: Sequence[Sample], *, on_progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float32]:
    """Return the thumbnails of N images: float32 (N, 256), each without its mean and of length 1.

    A plain surface, and an image that cannot be read, is a row of zeros.
    """
    rows = np.zeros((len(samples), SIDE * SIDE), dtype=np.float32)
    with ExitStack() as held:
        loaded: Iterable[NDArray[np.float32]] = map(_read, samples)
        if not are_small([sample.path for sample in samples]):
            ahead = load_ahead(samples, _read, n_threads=count_cores(), n_ahead=N_AHEAD)
            loaded = held.enter_context(closing(ahead))
        for i, row in enumerate(loaded):
            rows[i] = row
            if on_progress is not None:
                on_progress(i + 1, len(samples))
    return rows


def same_pixels(one: Sample, other: Sample) -> bool:
    """Whether two files decode to identical pixels."""
    try:
        return _same_colours(_pixels(one, FULL_RANGE), _pixels(other, FULL_RANGE))
    except (OSError, ImageRefused):
        return False


def _read(sample: Sample) -> NDArray[np.float32]:
    from PIL import Image

    try:
        pixels = _pixels(sample, IMAGE_RANGE)
    except (OSError, ImageRefused):
        return np.zeros(SIDE * SIDE, dtype=np.float32)
    grey = Image.fromarray(pixels).convert("L")
    how = Image.Resampling.BOX if min(grey.size) >= SIDE else Image.Resampling.BICUBIC
    small = np.asarray(grey.resize((SIDE, SIDE), how), dtype=np.float32).reshape(-1)
    toned = small - small.mean()
    return toned / np.linalg.norm(toned) if toned.std() >= FLAT else np.zeros_like(toned)


def _same_colours(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two images (H, W) or (H, W, 3) have the same pixels, where grey is a colour."""
    if one.shape[:2] != other.shape[:2]:
        return False
    if one.ndim != other.ndim:
        one, other = (each if each.ndim == 3 else each[..., None] for each in (one, other))
    return bool((one == other).all())


def _pixels(sample: Sample, levels: str) -> NDArray[np.uint8]:
    with open_sample(sample.path) as file:
        return decode_array(file, levels=levels)
