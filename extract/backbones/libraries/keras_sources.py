"""Where the weights of Keras networks are: in Keras's own folder, to which Keras downloads them, or in a file."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from featurecache.base.errors import UnknownWeights, WeightsMissing
from featurecache.base.text import printable
from featurecache.extract.backbones.libraries.keras_names import (
    IMAGENET,
    SOURCE,
    application_of,
    keras_transform,
)
from featurecache.extract.backbones.libraries.keras_networks import keras_library
from featurecache.extract.backbones.named_file import file_and_part, with_part
from featurecache.extract.backbones.weights_source import WeightsSource

SUFFIXES = (".h5", ".hdf5", ".keras")


def find_keras(backbone: str, weights: str | None = None) -> WeightsSource:
    """Return the published weights of a network, or those of a file of the user; nothing is downloaded.

    A file that is called like the published one is read as it. Raises UnknownBackbone, UnknownWeights.
    """
    application = application_of(backbone)
    transform = keras_transform(application)
    if weights is None or weights.lower() in ("default", IMAGENET.lower()):
        meta = {"is_scaled": application.is_scaled}
        return WeightsSource(backbone, IMAGENET, application.path, transform, url=SOURCE, meta=meta)
    path, part = file_and_part(weights)
    if not os.path.isfile(path):  # noqa: PTH113 (closed folders)
        raise UnknownWeights(
            f"There is no file '{printable(weights)}', and no weights of {printable(backbone)} are called so: it has "
            f"{IMAGENET}."
        )
    if path.suffix not in SUFFIXES:
        raise UnknownWeights(
            f"'{printable(path.name)}' is no file of Keras: weights of {printable(backbone)} are read from "
            ".weights.h5, .h5 and .keras."
        )
    meta = {"is_scaled": application.is_scaled and path.name == application.file_name}
    return WeightsSource(backbone, with_part(path.name, part), path, transform, meta=meta, part=part, is_own=True)


def fetch_keras(source: WeightsSource) -> Path:
    """Let Keras download the published weights, and check them; return their file. Raises WeightsMissing."""
    application = application_of(source.backbone)
    keras = keras_library(source.backbone)
    reason = "Keras has kept them elsewhere"
    try:
        with contextlib.redirect_stdout(sys.stderr), keras.device("cpu"):
            getattr(keras.applications, application.name)(weights="imagenet", include_top=False)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (Keras raises a plain Exception)
        # "URL fetch failure on <address>: <status> -- <reason>"
        reason = printable(" ".join(str(error).split()).rpartition(" -- ")[2][:160]) or type(error).__name__
    if not application.path.is_file():
        raise WeightsMissing(
            f"{printable(source.backbone)} needs {application.file_name}, which is not in "
            f"'{printable(application.path.parent)}' and could not be downloaded ({reason}). Put the file there, or "
            "name one with --weights FILE.h5."
        )
    return application.path


def about_keras(source: WeightsSource) -> dict[str, str]:
    """Return the licence, where Keras states it, and the source of published weights; for people."""
    if source.is_own:
        return {}
    licence = application_of(source.backbone).licence
    return {**({"license": licence} if licence else {}), "source": SOURCE}
