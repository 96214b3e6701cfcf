"""config.json as timm reads it: the architecture, its arguments, the classes and the transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from featurecache.extract.cache.transform_spec import CROP, PAD, SQUASH, TransformSpec

if TYPE_CHECKING:
    from featurecache.export.timm_folder.network import TimmNetwork

MODES = {CROP: "center", SQUASH: "squash", PAD: "border"}
# What is copied of timm's own configuration of the architecture: its layers and the images that it can take.
COPIED = ("first_conv", "classifier", "pool_size", "fixed_input_size", "min_input_size")


def config_document(network: TimmNetwork, transform: TransformSpec, classes: Sequence[str]) -> dict[str, Any]:
    """Return config.json of a network with a head, for images as the transform prepares them."""
    own = network.module.pretrained_cfg
    document: dict[str, Any] = {
        "architecture": network.architecture,
        "num_classes": len(classes),
        "num_features": network.module.num_features,
        "label_names": list(classes),
        "pretrained_cfg": {
            "tag": "featurecache",
            "custom_load": False,
            "input_size": [3, transform.crop, transform.crop],
            "interpolation": transform.interpolation.partition("-")[0],
            "crop_pct": crop_share(transform),
            "crop_mode": MODES[transform.fit],
            "mean": list(transform.mean),
            "std": list(transform.std),
            "num_classes": len(classes),
            **{name: own[name] for name in COPIED if own.get(name) is not None},
        },
    }
    if network.arguments:
        document["model_args"] = network.arguments
    return document


def crop_share(transform: TransformSpec) -> float:
    """Return the crop_pct from which timm computes the same resize: floor(crop / crop_pct)."""
    side, resize = transform.crop, transform.resize
    return side / resize if math.floor(side / (side / resize)) == resize else side / (resize + 0.5)
