"""What the options of a command ask for, as the values that the rest of the package takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from extract.request import FeatureRequest
from extract.settings import Settings
from pipeline.errors import UsageError
from pipeline.options import DEFAULT_LAYER

DEFAULT_BACKBONE = "efficientnet_lite0"


def requests_of(options: argparse.Namespace) -> tuple[FeatureRequest, ...]:
    """The kinds of features that the options name."""
    return tuple(
        FeatureRequest(
            backbone=name,
            weights=options.weights,
            layer=None if layer == DEFAULT_LAYER else layer,
            pooling=options.pooling,
            precision=options.precision,
            dtype=options.dtype,
            decode=options.decode,
            size=options.size,
        )
        for name in names_in("--backbone", options.backbone or [DEFAULT_BACKBONE])
        for layer in names_in("--layer", options.layer or [DEFAULT_LAYER])
    )


def names_in(option: str, texts: Sequence[str]) -> list[str]:
    """The names in a repeated option, each of which may hold several with commas between them."""
    names = list(dict.fromkeys(name for text in texts for name in text.split(",") if name))
    if not names:
        raise UsageError(f"{option} is empty. Give it a name, or leave it out for the default.")
    return names


def settings_of(options: argparse.Namespace) -> Settings:
    """How features are extracted."""
    from extract.decode import MAX_PIXELS

    return Settings(
        options.engine, options.device, options.batch_size, options.on_error, options.max_pixels or MAX_PIXELS
    )
