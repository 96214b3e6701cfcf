"""Items to pixels: decoded, turned upright, resized and cropped as an extraction does.

A PIL image whose file is open and not decoded yet is decoded from its file, so that it has the pixels of that file to
the last bit; any other is taken as it is, with its orientation, transparency and range applied by the same rules.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.spec import FULL_RANGE, REDUCED, FeatureSpec, image_digest
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import View, viewed
from featurecache.extract.images.decode import decode_picture, picture_of_image, refusal_of
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.decoding.memory import DECODING
from featurecache.extract.images.decoding.picture import Picture
from featurecache.extract.images.sources import (
    NO_PATH,
    WHOLE_BYTES,
    can_be_path,
    find_state,
    hash_sample,
    open_sample,
)
from featurecache.extract.images.transform import fit_pixels
from featurecache.extract.in_memory.items import BYTES, is_pil

# Two threads must not decode one PIL image at once.
PIL_LOCK = Lock()


@dataclass(frozen=True)
class PixelKind:
    """All that the pixels of an image depend on.

    geometry: the transform without mean and std; None for the whole image, uint8 (H, W, 3).
    """

    at_least: int | None
    levels: str
    geometry: TransformSpec | None
    view: View | None

    @classmethod
    def of(cls, spec: FeatureSpec) -> PixelKind:
        """Return the kind of the pixels that features are computed from."""
        at_least = spec.transform.resize if spec.decode == REDUCED else None
        view = View.of(spec.view) if spec.view else None
        return cls(at_least, spec.range, replace(spec.transform, mean=(), std=()), view)


def read_pixels(
    item: Any, kinds: Sequence[PixelKind], *, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], ...]:
    """Return the pixels of one image for each kind: uint8 (3, S, S), or (H, W, 3) of the whole image.

    item: see `items.py`. Raises ImageRefused with the reason, whatever is wrong with the image.
    """
    try:
        with DECODING.reservation() as reserved, _opened(item) as content:
            pictures: dict[tuple[int | None, str], Picture] = {}
            found = []
            for kind in kinds:
                how = kind.at_least, kind.levels
                if how not in pictures:
                    pictures[how] = _picture(content, kind, max_pixels, reserved.reserve)
                picture, geometry = pictures[how], kind.geometry
                pixels = _whole(picture) if geometry is None else fit_pixels(picture, geometry)
                found.append(pixels if kind.view is None else viewed(pixels, kind.view, _digest(item, content)))
            return tuple(found)
    except ImageRefused:
        raise
    except OSError as error:  # those of Pillow have no errno
        reason = refusal_of(error) if error.errno is None else f"cannot be read: {error.strerror or error}"
        raise ImageRefused(reason) from None
    except Exception as error:  # noqa: BLE001  (what decoders and the resize raise on odd images)
        raise ImageRefused(refusal_of(error)) from None


def _whole(picture: Picture) -> NDArray[np.uint8]:
    pixels = picture.array()
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2))


@contextmanager
def _opened(item: Any) -> Iterator[Any]:
    """Yield the bytes of an item, its open file if that is large, or what it is if it has no file."""
    if isinstance(item, BYTES):
        yield bytes(item)
    elif isinstance(item, str | os.PathLike):
        if not can_be_path(item):
            raise ImageRefused(f"cannot be read: {NO_PATH}")
        state = find_state(item)
        if state is None:
            raise ImageRefused("a folder, or no regular file")
        with open_sample(item) as file:
            yield file if state[0] > WHOLE_BYTES else file.read()
    else:
        yield _bytes_of_pil(item) or item if is_pil(item) else item


def undecoded(image: Any) -> bytes | NDArray[np.uint8]:
    """Return a PIL image as the bytes of its file, if that is open and not decoded yet; else as its upright pixels.

    Pixels are uint8 (H, W, 3) or (H, W). Raises ImageRefused where they cannot be had.
    """
    try:
        if (content := _bytes_of_pil(image)) is not None:
            return content
        with PIL_LOCK:
            return picture_of_image(image, FULL_RANGE).array()
    except ImageRefused:
        raise
    except Exception as error:  # noqa: BLE001  (what Pillow raises on odd images)
        raise ImageRefused(refusal_of(error)) from None


def _bytes_of_pil(image: Any) -> bytes | None:
    """Return the file of a PIL image that is open and not decoded yet, as it is; None for any other."""
    with PIL_LOCK:
        file: Any = getattr(image, "fp", None)
        is_whole = bool(getattr(image, "tile", None)) and file is not None and image.tell() == 0
        if not is_whole or getattr(image, "decoderconfig", ()) not in ((), None):
            return None
        try:
            before = file.tell()
            file.seek(0)
            content: bytes = file.read()
            file.seek(before)
        except (OSError, ValueError, AttributeError):
            return None
    return content


def _picture(content: Any, kind: PixelKind, max_pixels: int, reserve: Callable[[int], None]) -> Picture:
    if isinstance(content, bytes) or hasattr(content, "seekable"):
        return decode_picture(
            content, max_pixels=max_pixels, at_least=kind.at_least, levels=kind.levels, reserve=reserve
        )
    if isinstance(content, np.ndarray):
        _check_size(content.shape[:2], max_pixels, reserve)
        # torch warns of arrays that must not be written to, such as those of PIL images.
        return Picture.of(np.require(np.asarray(content), requirements="W"))
    with PIL_LOCK:
        _check_size((content.height, content.width), max_pixels, reserve)
        return picture_of_image(content, kind.levels)


def _check_size(shape: tuple[int, ...], max_pixels: int, reserve: Callable[[int], None]) -> None:
    height, width = shape
    if height * width > max_pixels:
        raise ImageRefused(f"{width} x {height} pixels are more than the limit of {max_pixels:,} (see max_pixels)")
    reserve(height * width)


def _digest(item: Any, content: Any) -> bytes:
    """Return the SHA-256 that the random numbers of a view come from: of the file, or of what is in memory."""
    if isinstance(content, bytes):
        return image_digest(content)
    if isinstance(item, str | os.PathLike):
        return hash_sample(item)[0]
    return image_digest(np.asarray(content).tobytes())
