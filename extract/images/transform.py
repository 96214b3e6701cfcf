"""The transform of the weights, applied to uint8 pixels.

The pixels stay uint8 up to the backbone, whose module subtracts the mean and divides by the standard deviation. So an
image needs a quarter of the memory, and resizing uses torch's integer kernel, which agrees with Pillow's to 1 of 255.
It is called directly: torchvision's `resize` chooses between this kernel and float arithmetic by its version and the
processor, and the vectors of the two differ by percents. The geometry is that of torchvision's `weights.transforms()`:
resize the shortest side to `resize`, then centre crop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.decoding.picture import STRIP_PIXELS, Picture
from featurecache.extract.images.decoding.taps import FILTERED, resize_columns, source_range

if TYPE_CHECKING:
    from torch import Tensor

MAX_RESIZED_PIXELS = 178_956_970  # Pillow's limit too: twice its MAX_IMAGE_PIXELS
# From this multiple of the crop on, only what the crop needs of the longest side is resized.
LONG = 4


def apply_transform(image: Tensor | Picture, spec: TransformSpec, out: Tensor | None = None) -> Tensor:
    """Resize and centre-crop one image, in uint8 from end to end.

    image: uint8 (3, H, W), or a picture, which is read in strips if it is large. The three channels of a grey image may
    be one in memory: it is resized once.
    out: uint8 (3, S, S) to write the result to, such as a row of a batch.
    Returns uint8 (3, S, S), S = spec.crop, contiguous, so that nothing of the resized image stays in memory.
    Raises ImageRefused where the image is so elongated that it would have more than MAX_RESIZED_PIXELS.
    """
    import torch

    source = (image.height, image.width) if isinstance(image, Picture) else (image.shape[-2], image.shape[-1])
    height, width = _resized(*source, spec.resize)
    if height * width > MAX_RESIZED_PIXELS:
        raise ImageRefused(
            f"{source[1]} x {source[0]} pixels is too elongated: with its shortest side at {spec.resize} "
            f"it would exceed {MAX_RESIZED_PIXELS:,} pixels"
        )
    is_filtered = spec.antialias and spec.interpolation in FILTERED
    is_large = isinstance(image, Picture) and source[0] * source[1] > STRIP_PIXELS
    if is_filtered and (is_large or max(height, width) > LONG * spec.crop):
        resized = _resize_by_axes(image, source[0], height, width, spec)
    else:
        whole = image.pixels() if isinstance(image, Picture) else image
        resized = _resize(_channels(whole), height, width, spec)
    fitted = torch.empty((3, spec.crop, spec.crop), dtype=torch.uint8) if out is None else out
    return fitted.copy_(_centre(resized, spec.crop).expand(3, -1, -1))


def _channels(image: Tensor) -> Tensor:
    """Return the channels that differ in memory: one of a grey image."""
    return image[:1] if image.stride(0) == 0 else image


def _resized(height: int, width: int, resize: int) -> tuple[int, int]:
    """Return height and width after resizing the shortest side to `resize`, rounded down as torchvision does."""
    shortest, longest = sorted((height, width))
    long_side = int(resize * longest / shortest)
    return (resize, long_side) if height <= width else (long_side, resize)


def _resize(image: Tensor, height: int, width: int, spec: TransformSpec) -> Tensor:
    """Resize all of an image, (C, H, W) -> (C, height, width)."""
    import torch
    from torch.nn.functional import interpolate

    if tuple(image.shape[-2:]) == (height, width):
        return image
    # Channels last is how a decoder lays them out; the kernel fails on a contiguous image that becomes one pixel.
    batch = image[None].contiguous(memory_format=torch.channels_last) if len(image) > 1 else image[None].contiguous()
    antialias = spec.antialias and spec.interpolation in FILTERED
    return interpolate(batch, (height, width), mode=spec.interpolation, antialias=antialias)[0]


def _resize_by_axes(image: Tensor | Picture, n_rows: int, height: int, width: int, spec: TransformSpec) -> Tensor:
    """Resize the width, by strips of rows, and then the height, as the kernel does: the same pixels.

    Of a side that is much longer than the crop, only what is cropped is resized.
    """
    import torch

    first, longest = _offset(max(height, width), spec.crop), max(height, width)
    wanted = range(first, first + spec.crop) if longest > LONG * spec.crop else None
    needed = range(n_rows)
    if wanted and height == longest:
        needed = source_range(n_rows, height, wanted, spec.interpolation)
    columns = wanted if width == longest else None
    strips = image.strips(needed) if isinstance(image, Picture) else [image[:, needed.start : needed.stop]]
    narrow = torch.cat([_resize_width(_channels(strip), width, columns, spec) for strip in strips], dim=1)
    if not wanted or columns:
        return _resize(narrow, height, narrow.shape[-1], spec)
    turned = narrow.transpose(1, 2).numpy()
    part = resize_columns(turned, height, wanted, spec.interpolation, n_source=n_rows, start=needed.start)
    return torch.from_numpy(part).transpose(1, 2)


def _resize_width(image: Tensor, width: int, columns: range | None, spec: TransformSpec) -> Tensor:
    """Resize the width of an image (C, h, W), and return these columns of it, all by default."""
    import torch

    if columns is None:
        return _resize(image, image.shape[-2], width, spec)
    return torch.from_numpy(resize_columns(image.numpy(), width, columns, spec.interpolation))


def _offset(side: int, crop: int) -> int:
    return round((side - crop) / 2.0)


def _centre(image: Tensor, crop: int) -> Tensor:
    """Return the middle (C, crop, crop) of an image; black where the image is smaller."""
    from torch.nn.functional import pad

    height, width = image.shape[-2:]
    lacks = [max(0, crop - width), max(0, crop - height)]
    if any(lacks):
        image = pad(image, [side for lack in lacks for side in (lack // 2, (lack + 1) // 2)])
        height, width = image.shape[-2:]
    top, left = _offset(height, crop), _offset(width, crop)
    return image[:, top : top + crop, left : left + crop]
