"""Resizing by torch, or by numpy to the same pixels where torch is not loaded and would take longer to load.

torch's kernel takes 1 ms for an image of 500 x 375 pixels, numpy 6 to 8; to import torch takes seconds and hundreds of
megabytes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from threading import Lock, Thread
from typing import TYPE_CHECKING

import numpy as np

from featurecache.extract.images.decoding.taps import FILTERED, count_taps, resize_axis, source_range

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Products of a process by numpy after which torch is loaded: two seconds.
MOST_PRODUCTS = 700_000_000


class Spent:
    """How many products numpy has computed for this process; threads may lose some of each other's."""

    products = 0


class Aside:
    """Loading torch in a thread of its own, for programs in which no image may wait for it."""

    is_wanted = False
    _thread: Thread | None = None
    _lock = Lock()

    @classmethod
    def begin(cls) -> None:
        """Begin to load it, once."""
        with cls._lock:
            if cls._thread is None:
                cls._thread = Thread(target=importlib.import_module, args=("torch",), daemon=True)
                cls._thread.start()


def load_torch_aside() -> None:
    """Let numpy resize images until torch, where it is worth loading, is loaded: no thread waits for it."""
    Aside.is_wanted = True


def torch_is_loaded() -> bool:
    """Whether torch is imported, to the end."""
    torch = sys.modules.get("torch")
    return torch is not None and not getattr(torch.__spec__, "_initializing", False)


def is_by_numpy(mode: str, *, antialias: bool) -> bool:
    """Whether an image is resized by numpy: in a filtered mode, while torch is not loaded and not worth loading."""
    if not (antialias and mode in FILTERED):
        return False
    if not Aside.is_wanted:
        return "torch" not in sys.modules and Spent.products < MOST_PRODUCTS
    if Spent.products >= MOST_PRODUCTS:
        Aside.begin()
    return not torch_is_loaded()


def resize_part(
    strips: Iterable[NDArray[np.uint8]],
    source: tuple[int, int],
    size: tuple[int, int],
    part: tuple[range, range],
    mode: str,
) -> NDArray[np.uint8]:
    """Return rows and columns, `part`, of an image of `source` height and width that is resized to `size`, by numpy.

    strips: uint8 (C, h, W), the rows `rows_needed` of the image in strips. Returns uint8 (C, len(rows), len(columns)).
    """
    needed = rows_needed(source[0], size[0], part[0], mode)
    narrow = np.concatenate([*_narrowed(strips, source[1], size[1], part[1], mode)], axis=0)
    if size[0] == source[0]:
        return narrow.transpose(2, 0, 1)
    Spent.products += count_taps(source[0], size[0], mode) * len(part[0]) * narrow[0].size
    resized = resize_axis(narrow, 0, size[0], part[0], mode, n_source=source[0], start=needed.start)
    return resized.transpose(2, 0, 1)


def pick_pixels(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize (C, H, W) to (C, height, width) by the nearest pixel, as Pillow's `resize` does.

    Pixel i of n is from floor(s / 2 + i s), s = N / n, where Pillow adds s up step by step: products round otherwise.
    """
    rows, columns = (_nearest(n_source, n) for n_source, n in zip(image.shape[-2:], (height, width), strict=True))
    picked: NDArray[np.uint8] = image[:, rows[:, None], columns[None]]
    return picked


def _nearest(n_source: int, n: int) -> NDArray[np.int64]:
    step = n_source / n
    places = np.cumsum([step / 2, *[step] * (n - 1)])
    return np.minimum(places.astype(np.int64), n_source - 1)


def rows_needed(n_source: int, n: int, wanted: range, mode: str) -> range:
    """Return the rows of a source that the wanted rows of n depend on."""
    return wanted if n == n_source else source_range(n_source, n, wanted, mode)


def _narrowed(
    strips: Iterable[NDArray[np.uint8]], n_source: int, n: int, wanted: range, mode: str
) -> Iterator[NDArray[np.uint8]]:
    """Yield the wanted columns of strips (C, h, W), as (h, len(wanted), C)."""
    for strip in strips:
        rows = strip.transpose(1, 2, 0)
        if n == n_source:
            yield rows[:, wanted.start : wanted.stop]
            continue
        Spent.products += count_taps(n_source, n, mode) * len(wanted) * rows[:, 0].size
        yield resize_axis(rows, 1, n, wanted, mode)
