"""What `predict` says of the images that an exported file is compared on: those of the run, and odd ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.errors import FeatureCacheError
from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.export.parity import MOST_IMAGES, Reference
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.images.read import read_images
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.job.settings import Settings
from featurecache.predictor import Predictor
from featurecache.runs.moved import config_of_now
from featurecache.runs.record_checks import read_config, read_results
from featurecache.runs.split_list import read_splits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def images_of_run(run: Path, *, images: str | None, progress: Progress) -> Manifest | None:
    """Return up to MOST_IMAGES images of a run, spread over all; None, with a line, where they are not here any more.

    images: where the user says that they are.
    """
    results, config = read_results(run), read_config(run)
    try:
        listed = read_splits(run)
        now = config_of_now(run, config, results["features"], (each.path for each in listed), images=images)
        known = {each.path for each in listed}
        found = read_images(now["images_at"], ReadOptions.from_dict(now.get("reading", {})))
        samples = [each for each in found.samples if printable(each.name) in known and os.path.isfile(each.path)]  # noqa: PTH113
    except (OSError, ValueError, LookupError, FeatureCacheError) as error:
        if images is not None:
            raise
        progress.say(f"The file is compared on odd images alone: those of the run are not here ({error}).")
        return None
    if not samples:
        progress.say("The file is compared on odd images alone: those of the run are not here. Name them by --images.")
        return None
    step = max(1.0, len(samples) / MOST_IMAGES)
    chosen = tuple(samples[int(i * step)] for i in range(min(len(samples), MOST_IMAGES)))
    return replace(found, samples=chosen)


def references_of(predictor: Predictor, images: Manifest | Sequence[Path], progress: Progress) -> list[Reference]:
    """Return what `predict` says of images; those that it refuses are left out."""
    is_manifest = isinstance(images, Manifest)
    predictions = predictor.predict(images, settings=Settings(on_error="skip"), progress=progress)
    return [
        Reference(sample.name if is_manifest else Path(sample.path).name, Path(sample.path), int(code), proba)
        for sample, code, proba in zip(predictions.samples, predictions.codes, predictions.proba, strict=True)
    ]


def vectors_of(predictor: Predictor, path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the features (D,) that `predict` computes of an image file, by the key of their spec."""
    return {key: rows[0] for key, rows in predictor._vectors_of([path]).items()}
