"""Images labelled and written block by block: what every format takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from featurecache.base.progress import Progress
from featurecache.predictions.columns import Listing
from featurecache.predictions.labelled import BLOCK_IMAGES, Labelled, Predictions
from featurecache.predictions.outcome import Outcome
from featurecache.runs.file_counts import FileCounts


@dataclass(frozen=True)
class Writing:
    """Predictions on their way to a file.

    listing: the columns. blocks: of images, in their order, each labelled when it is asked for. outcome: of the blocks
    so far; of all behind the last.
    """

    head: str
    files: FileCounts
    listing: Listing
    blocks: Iterable[Predictions]
    outcome: Outcome


def begin_writing(
    labelled: Labelled, listing: Listing, progress: Progress, *, block_images: int = BLOCK_IMAGES
) -> Writing:
    """Return the predictions of all images for a format to write, counted and reported to `progress` on their way."""
    outcome, n = Outcome(), len(labelled.samples)

    def counted() -> Iterator[Predictions]:
        for block in labelled.blocks(block_images):
            outcome.add(block, listing)
            yield block
            progress.counting("predicting", "images", outcome.n_images, n)

    return Writing(labelled.head, labelled.files, listing, counted(), outcome)
