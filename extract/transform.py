"""What the weights expect of an image: plain values, and their application on uint8 pixels.

The pixels stay uint8 up to the backbone, which subtracts the mean and divides by the standard deviation inside its own
graph. So an image takes a quarter of the memory, and resizing uses the integer kernels, which agree with Pillow's to
1 of 255. The geometry is that of torchvision's `weights.transforms()`: shortest side to `resize`, then the centre.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from extract.errors import ImageRefused

if TYPE_CHECKING:
    from torch import Tensor

MAX_SIDE = 8192  # of the input of a network; those that are in use take 32 to 1,024
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic")
MAX_PIXELS = 178_956_970  # where Pillow, too, stops believing in an image: twice its MAX_IMAGE_PIXELS


@dataclass(frozen=True)
class TransformSpec:
    """How an image becomes the (3, S, S) input of a backbone; S is `crop`.

    resize: length of the shortest side after resizing, in pixels.
    crop: side of the centred square that is cut out, in pixels.
    interpolation: "bilinear" or "bicubic".
    antialias: whether the filter widens when it shrinks an image, as Pillow's does.
    mean, std: one value a channel (R, G, B), in units of the full range, 0 to 1.
    """

    resize: int
    crop: int
    interpolation: str
    antialias: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TransformSpec:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError on values that are no transform."""
        found = cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in (found.resize, found.crop)):
            raise ValueError(f"its sides are not 1 to {MAX_SIDE:,} pixels")
        if found.interpolation not in INTERPOLATIONS or type(found.antialias) is not bool:
            raise ValueError("its interpolation is none")
        values_of = [value for channels in (found.mean, found.std) for value in channels]
        are_numbers = all(type(value) in (int, float) and isfinite(value) for value in values_of)
        if len(found.mean) != 3 or len(found.std) != 3 or not are_numbers or min(found.std) <= 0:
            raise ValueError("its mean and standard deviation are not those of three channels")
        return found


def scaled_to(spec: TransformSpec, size: int) -> TransformSpec:
    """The same for inputs of another side: the image is resized in proportion, and the same part of it cut out."""
    return replace(spec, resize=round(spec.resize * size / spec.crop), crop=size)


def apply_transform(image: Tensor, spec: TransformSpec) -> Tensor:
    """Resize and centre-crop one image, in uint8 from end to end.

    image: uint8 (3, H, W).
    Returns uint8 (3, S, S), S = spec.crop.
    Raises ImageRefused where the image is so elongated that resizing it would need more than MAX_PIXELS.
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
    if resize * (resize * longest // shortest) > MAX_PIXELS:
        raise ImageRefused(
            f"{width} x {height} pixels is too elongated: with its shortest side at {resize} "
            f"it would exceed {MAX_PIXELS:,} pixels"
        )
