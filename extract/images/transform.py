"""The transform of the weights, applied to uint8 pixels.

The pixels stay uint8 up to the backbone, whose module subtracts the mean and divides by the standard deviation. So an
image needs a quarter of the memory, and resizing uses torch's integer kernel, which agrees with Pillow's to 1 of 255.
It is called directly, or computed to the same pixels (`decoding/resizing.py`): torchvision's `resize` chooses between
this kernel and float arithmetic by its version and the processor, and the vectors of the two differ by percents. The
geometry is that of torchvision's `weights.transforms()`: resize the shortest side to `resize`, then centre crop. Two
more are timm's: `squash` resizes both sides to `resize`, `pad` the longest one, and the rest of the crop is filled.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.transform_spec import CROP, NEAREST_PILLOW, SQUASH, TransformSpec
from featurecache.extract.images.decoding.picture import STRIP_PIXELS, Picture
from featurecache.extract.images.decoding.resizing import is_by_numpy, pick_pixels, resize_part, rows_needed
from featurecache.extract.images.decoding.taps import FILTERED, resize_columns, source_range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor

MAX_RESIZED_PIXELS = 178_956_970  # Pillow's limit too: twice its MAX_IMAGE_PIXELS
# From this multiple of the crop on, only what the crop needs of the longest side is resized.
LONG = 4


def apply_transform(image: Tensor | Picture, spec: TransformSpec, out: Tensor | None = None) -> Tensor:
    """Resize and centre-crop one image as `fit_pixels` does, to a tensor.

    image: uint8 (3, H, W), or a picture. out: uint8 (3, S, S) to write the result to. Returns uint8 (3, S, S).
    """
    import torch

    pixels = image if isinstance(image, Picture) else image.numpy()
    fitted = torch.from_numpy(fit_pixels(pixels, spec, None if out is None else out.numpy()))
    return fitted if out is None else out


def fit_pixels(
    image: NDArray[np.uint8] | Picture, spec: TransformSpec, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Resize and centre-crop one image, in uint8 from end to end.

    image: uint8 (3, H, W), or a picture, which is read in strips if it is large. The three channels of a grey image may
    be one in memory: it is resized once.
    out: uint8 (3, S, S) to write the result to, such as a row of a batch.
    Returns uint8 (3, S, S), S = spec.crop, contiguous, so that nothing of the resized image stays in memory.
    Raises ImageRefused where the image is so elongated that it would have more than MAX_RESIZED_PIXELS.
    """
    source = (image.height, image.width) if isinstance(image, Picture) else (image.shape[-2], image.shape[-1])
    height, width = _resized(source[0], source[1], spec)
    if height * width > MAX_RESIZED_PIXELS:
        raise ImageRefused(
            f"{source[1]} x {source[0]} pixels is too elongated: with its shortest side at {spec.resize} "
            f"it would exceed {MAX_RESIZED_PIXELS:,} pixels"
        )
    is_filtered = spec.antialias and spec.interpolation in FILTERED
    is_large = isinstance(image, Picture) and source[0] * source[1] > STRIP_PIXELS
    if is_by_numpy(spec.interpolation, antialias=spec.antialias):
        resized = _crop_by_numpy(image, source, (height, width), spec)
    elif is_filtered and (is_large or max(height, width) > LONG * spec.crop):
        resized = _resize_by_axes(image, source[0], height, width, spec)
    else:
        whole = image.channels() if isinstance(image, Picture) else image
        resized = _resize(_channels(whole), height, width, spec)
    fitted = np.empty((3, spec.crop, spec.crop), dtype=np.uint8) if out is None else out
    if spec.fill:
        fitted[:] = np.array(spec.fill, dtype=np.uint8).reshape(3, 1, 1)
        rows, columns = (_place(side, spec.crop) for side in resized.shape[-2:])
        fitted[:, rows[0], columns[0]] = resized[:, rows[1], columns[1]]
    else:
        fitted[:] = _centre(resized, spec.crop)
    return fitted


def is_fit_together(source: tuple[int, int], spec: TransformSpec) -> bool:
    """Return whether `fit_together` fits images of this height and width as `fit_pixels` does."""
    size = _resized(*source, spec)
    is_small = source[0] * source[1] <= STRIP_PIXELS and size[0] * size[1] <= STRIP_PIXELS
    is_usual = is_small and not spec.fill and min(*source, *size) > 1 and max(size) <= LONG * spec.crop
    return is_usual and "torch" in sys.modules and not is_by_numpy(spec.interpolation, antialias=spec.antialias)


def fit_together(images: NDArray[np.uint8], spec: TransformSpec) -> NDArray[np.uint8]:
    """Resize and centre-crop images of one size at once: uint8 (n, H, W, C) to (n, C, S, S), C = 1 where grey."""
    height, width = _resized(images.shape[1], images.shape[2], spec)
    return _centre(_resize(images.transpose(0, 3, 1, 2), height, width, spec), spec.crop)


def _place(side: int, crop: int) -> tuple[slice, slice]:
    """Return which part of the crop a side of the resized image covers, and which part of that side does."""
    lack = max(0, crop - side) // 2
    part = _middle(side, crop)
    return slice(lack, lack + len(part)), slice(part.start, part.stop)


def _crop_by_numpy(
    image: NDArray[np.uint8] | Picture, source: tuple[int, int], size: tuple[int, int], spec: TransformSpec
) -> NDArray[np.uint8]:
    """Return the middle of the resized image, or all of a side that is shorter than the crop."""
    rows, columns = (_middle(side, spec.crop) for side in size)
    needed = rows_needed(source[0], size[0], rows, spec.interpolation)
    strips = (_channels(strip) for strip in _strips(image, needed))
    return resize_part(strips, source, size, (rows, columns), spec.interpolation)


def _strips(image: NDArray[np.uint8] | Picture, rows: range) -> Iterable[NDArray[np.uint8]]:
    return image.strips(rows) if isinstance(image, Picture) else [image[:, rows.start : rows.stop]]


def _middle(side: int, crop: int) -> range:
    first = max(0, _offset(side, crop))
    return range(first, min(side, first + crop))


def _channels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the channels that differ in memory: one of a grey image."""
    return image[:1] if image.strides[0] == 0 else image


def _resized(height: int, width: int, spec: TransformSpec) -> tuple[int, int]:
    """Return height and width after resizing.

    With `crop` the longest side is rounded down as torchvision does, with `pad` both are rounded as timm does.
    """
    resize = spec.resize
    if spec.fit == SQUASH:
        return resize, resize
    if spec.fit != CROP:
        ratio = max(height / resize, width / resize)
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    shortest, longest = sorted((height, width))
    long_side = int(resize * longest / shortest)
    return (resize, long_side) if height <= width else (long_side, resize)


def _resize(image: NDArray[np.uint8], height: int, width: int, spec: TransformSpec) -> NDArray[np.uint8]:
    """Resize all of an image, (C, H, W) -> (C, height, width), or of several, (n, C, H, W), by torch."""
    if image.shape[-2:] == (height, width):
        return image
    if spec.interpolation == NEAREST_PILLOW:
        return pick_pixels(image, height, width)
    import torch
    from torch.nn.functional import interpolate

    batch = torch.from_numpy(image if image.ndim == 4 else image[None])
    # Channels last is how a decoder lays them out; the kernel fails on a contiguous image that becomes one pixel.
    batch = batch.contiguous(memory_format=torch.channels_last) if image.shape[-3] > 1 else batch.contiguous()
    antialias = spec.antialias and spec.interpolation in FILTERED
    resized = interpolate(batch, (height, width), mode=spec.interpolation, antialias=antialias).numpy()
    return np.asarray(resized if image.ndim == 4 else resized[0])


def _resize_by_axes(
    image: NDArray[np.uint8] | Picture, n_rows: int, height: int, width: int, spec: TransformSpec
) -> NDArray[np.uint8]:
    """Resize the width, by strips of rows, and then the height, as the kernel does: the same pixels.

    Of a side that is much longer than the crop, only what is cropped is resized.
    """
    first, longest = _offset(max(height, width), spec.crop), max(height, width)
    wanted = range(first, first + spec.crop) if longest > LONG * spec.crop else None
    needed = range(n_rows)
    if wanted and height == longest:
        needed = source_range(n_rows, height, wanted, spec.interpolation)
    columns = wanted if width == longest else None
    strips = _strips(image, needed)
    narrow = np.concatenate([_resize_width(_channels(strip), width, columns, spec) for strip in strips], axis=1)
    if not wanted or columns:
        return _resize(narrow, height, narrow.shape[-1], spec)
    turned = narrow.transpose(0, 2, 1)
    part = resize_columns(turned, height, wanted, spec.interpolation, n_source=n_rows, start=needed.start)
    return part.transpose(0, 2, 1)


def _resize_width(
    image: NDArray[np.uint8], width: int, columns: range | None, spec: TransformSpec
) -> NDArray[np.uint8]:
    """Resize the width of an image (C, h, W), and return these columns of it, all by default."""
    if columns is None:
        return _resize(image, image.shape[-2], width, spec)
    return resize_columns(image, width, columns, spec.interpolation)


def _offset(side: int, crop: int) -> int:
    return round((side - crop) / 2.0)


def _centre(image: NDArray[np.uint8], crop: int) -> NDArray[np.uint8]:
    """Return the middle (..., crop, crop) of an image or several; black where they are smaller."""
    height, width = image.shape[-2:]
    lacks = [(lack // 2, (lack + 1) // 2) for lack in (max(0, crop - height), max(0, crop - width))]
    if any(map(any, lacks)):
        image = np.pad(image, [*[(0, 0)] * (image.ndim - 2), *lacks])
        height, width = image.shape[-2:]
    top, left = _offset(height, crop), _offset(width, crop)
    return image[..., top : top + crop, left : left + crop]
