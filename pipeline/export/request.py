"""What is exported: a head of a run, and the images that it is compared with `predict` on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.errors import UsageError
from featurecache.base.progress import Progress, Silent
from featurecache.base.text import printable
from featurecache.export.references import images_of_run
from featurecache.predictor import Predictor
from featurecache.predictor.predictor import ExportedPredictor
from featurecache.runs.models.places import find_run

if TYPE_CHECKING:
    from featurecache.extract.images.manifest import Manifest


@dataclass(frozen=True)
class ExportRequest:
    """A head of a run or a model, the best on val unless named.

    images: where those of the run are now; None: where the run saw them. The other fields are arguments of
    `Predictor.load`.
    """

    run: str | os.PathLike[str]
    head: str | None = None
    images: str | None = None
    weights: str | None = None
    cache_root: Path | None = None
    trust_head: bool = False
    progress: Progress = field(default_factory=Silent)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return find_run(self.run)

    def load(self) -> Predictor:
        """Return the head. Raises UsageError for one that is exported already, and what `Predictor.load` raises."""
        predictor = Predictor.load(
            self.run, head=self.head, weights=self.weights, cache_root=self.cache_root, trust_head=self.trust_head,
            progress=self.progress,
        )  # fmt: skip
        if isinstance(predictor, ExportedPredictor):
            raise UsageError(
                f"'{printable(self.run)}' is an exported file already. Name the folder of a run, or a model."
            )
        return predictor

    def compared_images(self) -> Manifest | None:
        """Return up to 1,000 images of the run; None, with a line, where they are not here any more."""
        return images_of_run(self.folder, images=self.images, progress=self.progress)

    def needed_images(self) -> Manifest:
        """Return the same. Raises UsageError where they are not here."""
        found = images_of_run(self.folder, images=self.images, progress=Silent())
        if found is None:
            raise UsageError("What is exported is compared with predict on images of the run: name them by --images.")
        return found
