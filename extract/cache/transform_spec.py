"""TransformSpec: the transform that the weights expect, as plain values."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields, replace
from math import isfinite
from typing import Any, NotRequired, TypedDict, cast

MAX_SIDE = 8192  # of the input of a network; common networks have 32 to 1,024
# nearest-pillow: the pixels that Pillow takes, where torch may take the one next to it.
NEAREST_PILLOW = "nearest-pillow"
INTERPOLATIONS = ("nearest", "nearest-exact", NEAREST_PILLOW, "bilinear", "bicubic")
CROP, SQUASH, PAD = FITS = ("crop", "squash", "pad")


class TransformDocument(TypedDict):
    """A TransformSpec as JSON."""

    resize: int
    crop: int
    interpolation: str
    antialias: bool
    mean: list[float]
    std: list[float]
    fit: NotRequired[str]
    fill: NotRequired[list[int]]


@dataclass(frozen=True)
class TransformSpec:
    """The transform of an image to the (3, S, S) input of a backbone; S is `crop`.

    resize: length of the shortest side after resizing, in pixels; with `squash` of both, with `pad` of the longest.
    crop: side of the centred square that is cut out, in pixels.
    interpolation: "bilinear" or "bicubic".
    antialias: whether the filter widens when it shrinks an image, as Pillow's does.
    mean, std: one value a channel (R, G, B), in units of the full range, 0 to 1.
    fit: crop and pad keep the proportions of the image, squash does not; pad adds borders to its shorter side.
    fill: the colour of these borders, 0 to 255 a channel; empty for black.
    """

    resize: int
    crop: int
    interpolation: str
    antialias: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = CROP
    fill: tuple[int, ...] = ()

    def to_dict(self) -> TransformDocument:
        """Return plain JSON values; fields at their default are omitted, so that a new field changes no key."""
        defaults = TRANSFORM_DEFAULTS
        values = {name: v for name, v in asdict(self).items() if name not in defaults or defaults[name] != v}
        written = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
        return cast("TransformDocument", written)

    def non_default(self) -> dict[str, Any]:
        """Return the fields that have another value than their default."""
        values = {name: getattr(self, name) for name in TRANSFORM_DEFAULTS}
        return {name: value for name, value in values.items() if value != TRANSFORM_DEFAULTS[name]}

    @classmethod
    def from_dict(cls, values: Any) -> TransformSpec:
        """Return the transform with these values, the inverse of `to_dict`. Raises KeyError, TypeError, ValueError."""
        if not isinstance(values, dict):
            raise TypeError("a transform is an object")
        whole: dict[str, Any] = {n: tuple(v) if n in ("mean", "std", "fill") else v for n, v in values.items()}
        found = cls(**whole)
        if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in (found.resize, found.crop)):
            raise ValueError(f"its sides are not 1 to {MAX_SIDE:,} pixels")
        if found.interpolation not in INTERPOLATIONS or type(found.antialias) is not bool:
            raise ValueError("its interpolation is unknown")
        values_of = [value for channels in (found.mean, found.std) for value in channels]
        are_numbers = all(type(value) in (int, float) and isfinite(value) for value in values_of)
        if len(found.mean) != 3 or len(found.std) != 3 or not are_numbers or min(found.std) <= 0:
            raise ValueError("its mean and standard deviation are not those of three channels")
        are_levels = all(type(level) is int and 0 <= level <= 255 for level in found.fill)
        if found.fit not in FITS or len(found.fill) not in (0, 3) or not are_levels:
            raise ValueError("the way that it fits an image to the input is unknown")
        return found


TRANSFORM_DEFAULTS = {each.name: each.default for each in fields(TransformSpec) if each.default is not MISSING}


def scaled_to(spec: TransformSpec, size: int) -> TransformSpec:
    """Return the transform for another input side, with `resize` in proportion: the same part of the image is used."""
    return replace(spec, resize=round(spec.resize * size / spec.crop), crop=size)
