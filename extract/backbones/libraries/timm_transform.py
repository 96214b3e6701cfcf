"""timm's resolved data config as a TransformSpec: the same crop, to a pixel.

center    shortest side to floor(size / crop_pct), centre crop                      fit="crop"
squash    both sides to that, centre crop                                          fit="squash"
border    longest side to that, the rest in the colour of the mean                  fit="pad", fill
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from featurecache.base.errors import BackboneError
from featurecache.base.text import printable
from featurecache.extract.backbones.libraries.timm_networks import TimmConfig, timm_library
from featurecache.extract.cache.transform_spec import CROP, PAD, SQUASH, TransformSpec

FITS = {"center": CROP, "squash": SQUASH, "border": PAD}
KNOWN_INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


def timm_transform(backbone: str, config: TimmConfig, *, size: int | None = None) -> TransformSpec:
    """Return the transform of a network's weights, for another side of the input if `size` is given.

    Raises BackboneError for what no TransformSpec expresses.
    """
    timm = timm_library(backbone)
    try:
        values: dict[str, Any] = timm.data.resolve_data_config({}, pretrained_cfg=dict(config.pretrained))
        found = _transform(backbone, values, size, timm.data.DEFAULT_CROP_PCT)
        return TransformSpec.from_dict(found.to_dict())
    except (ValueError, TypeError, KeyError, AssertionError, ArithmeticError) as error:
        reason = printable(" ".join(str(error).split())[:160]) or type(error).__name__
        raise BackboneError(
            f"The configuration of {printable(backbone)} has no transform of images: {reason}. Correct its input_size, "
            "crop_pct, mean or std."
        ) from error


def _transform(backbone: str, values: Mapping[str, Any], size: int | None, usual_crop_pct: float) -> TransformSpec:
    channels, height, width = values["input_size"]
    if size is None and height != width:
        raise BackboneError(
            f"{printable(backbone)} takes images of {width} x {height} pixels, and images are extracted as squares: "
            "choose a network for square ones."
        )
    side = height if size is None else size
    if channels != 3:
        raise BackboneError(f"{printable(backbone)} takes images of {channels} channels, and images here have three.")
    mode = values.get("crop_mode") or "center"
    interpolation = values["interpolation"]
    if mode not in FITS or interpolation not in KNOWN_INTERPOLATIONS:
        raise BackboneError(
            f"{printable(backbone)} resizes images by '{printable(str(interpolation))}' and crops them by "
            f"'{printable(str(mode))}'; known are {', '.join(KNOWN_INTERPOLATIONS)} and {', '.join(FITS)}."
        )
    mean, std = (tuple(float(value) for value in values[name]) for name in ("mean", "std"))
    return TransformSpec(
        resize=math.floor(side / (values.get("crop_pct") or usual_crop_pct)),
        crop=side,
        interpolation=interpolation,
        antialias=True,
        mean=mean,
        std=std,
        fit=FITS[mode],
        fill=tuple(round(255 * value) for value in mean) if mode == "border" else (),
    )
