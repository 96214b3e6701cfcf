"""Small plain JPEGs of one size among the images of a program, decoded and resized together as in an extraction.

They have the pixels that each would have alone, and share what calling the decoder and the resize costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.extract.images.decoding.jpeg import decode_stack
from featurecache.extract.images.decoding.orientation import UPRIGHT
from featurecache.extract.images.decoding.plain_jpeg import Header, read_header
from featurecache.extract.images.transform import fit_together, is_fit_together
from featurecache.extract.in_memory.items import BYTES
from featurecache.extract.in_memory.pixels import PixelKind, read_pixels
from featurecache.extract.job.decoding.decoder import SMALL_PIXELS, STACK_PIXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Prepared = tuple[NDArray[np.uint8], ...]


def read_all_pixels(
    items: Sequence[Any], kinds: Sequence[PixelKind], *, max_pixels: int
) -> list[Prepared | ImageRefused]:
    """Return what `read_pixels` returns for each item, or why it is refused."""
    found: dict[int, Prepared | ImageRefused] = {}
    for header, places in _alike(items, kinds, max_pixels).items():
        step = max(1, STACK_PIXELS // max(header.height * header.width, *(_resized_pixels(kind) for kind in kinds)))
        for start in range(0, len(places), step):
            found |= _together(header, places[start : start + step], items, kinds)
    for i, item in enumerate(items):
        if i in found:
            continue
        try:
            found[i] = read_pixels(item, kinds, max_pixels=max_pixels)
        except ImageRefused as error:
            found[i] = error
    return [found[i] for i in range(len(items))]


def _alike(items: Sequence[Any], kinds: Sequence[PixelKind], max_pixels: int) -> dict[Header, list[int]]:
    """Return the places of the items that can be decoded together, by their header."""
    found: dict[Header, list[int]] = {}
    if any(kind.at_least is not None or kind.view is not None or kind.geometry is None for kind in kinds):
        return found
    for i, item in enumerate(items):
        header = read_header(bytes(item)) if isinstance(item, BYTES) else None
        if header is not None and header.orientation == UPRIGHT:
            size = header.height, header.width
            if size[0] * size[1] <= min(SMALL_PIXELS, max_pixels) and _are_fit_together(size, kinds):
                found.setdefault(header, []).append(i)
    return found


def _are_fit_together(size: tuple[int, int], kinds: Sequence[PixelKind]) -> bool:
    return all(kind.geometry is not None and is_fit_together(size, kind.geometry) for kind in kinds)


def _resized_pixels(kind: PixelKind) -> int:
    return 0 if kind.geometry is None else kind.geometry.resize**2


def _together(
    header: Header, places: Sequence[int], items: Sequence[Any], kinds: Sequence[PixelKind]
) -> dict[int, Prepared]:
    """Return the pixels of images with one header, for those that the decoder takes without a warning."""
    files = [bytes(items[i]) for i in places]
    try:
        stack, whole = decode_stack(files, header[:2], is_grey=header.is_grey, begin=lambda _: None)
        part = stack if len(whole) == len(stack) else stack[whole]
        fitted = [_three_channels(fit_together(part, kind.geometry)) for kind in kinds if kind.geometry is not None]
    except Exception:  # noqa: BLE001  (such as too little memory: each image meets it again, and is refused)
        return {}
    return {places[i]: tuple(pixels[row] for pixels in fitted) for row, i in enumerate(whole)}


def _three_channels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return grey or colour images, uint8 (n, 1 or 3, S, S), as uint8 (n, 3, S, S)."""
    return np.broadcast_to(images, (len(images), 3, *images.shape[2:]))
