"""The transform of the weights, applied to uint8 pixels.

The pixels stay uint8 up to the backbone, whose module subtracts the mean and divides by the standard deviation. So an
image needs a quarter of the memory, and resizing uses the integer kernels, which agree with Pillow's to 1 of 255. The
geometry is that of torchvision's `weights.transforms()`: resize the shortest side to `resize`, then centre crop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.transform_spec import TransformSpec

if TYPE_CHECKING:
    from torch import Tensor

MAX_RESIZED_PIXELS = 178_956_970  # Pillow's limit too: twice its MAX_IMAGE_PIXELS


def scaled_to(spec: TransformSpec, size: int) -> TransformSpec:
    """Return the transform for another input side, with `resize` in proportion: the same part of the image is used."""
    return replace(spec, resize=round(spec.resize * size / spec.crop), crop=size)


def apply_transform(image: Tensor, spec: TransformSpec) -> Tensor:
    """Resize and centre-crop one image, in uint8 from end to end.

    image: uint8 (3, H, W).
    Returns uint8 (3, S, S), S = spec.crop.
    Raises ImageRefused where the image is so elongated that resizing it would need more than MAX_RESIZED_PIXELS.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F  # noqa: N812

    _refuse_elongated(image.shape[-2], image.shape[-1], spec.resize)
    mode = InterpolationMode(spec.interpolation)
    resized = F.resize(image, [spec.resize], interpolation=mode, antialias=spec.antialias)
    cropped: Tensor = F.center_crop(resized, [spec.crop])
    return cropped


def _refuse_elongated(height: int, width: int, resize: int) -> None:
    shortest, longest = sorted((height, width))
    if resize * (resize * longest // shortest) > MAX_RESIZED_PIXELS:
        raise ImageRefused(
            f"{width} x {height} pixels is too elongated: with its shortest side at {resize} "
            f"it would exceed {MAX_RESIZED_PIXELS:,} pixels"
        )
