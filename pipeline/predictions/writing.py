"""Images labelled and written block by block: what every format takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from featurecache.base.progress import Progress
from featurecache.predictions.columns import Listing
from featurecache.predictions.labelled import BLOCK_IMAGES, Labelled, Predictions
from featurecache.predictions.outcome import Outcome
from featurecache.runs.file_counts import FileCounts, merge_counts


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
    labelled: Sequence[Labelled], listing: Listing, progress: Progress, *, block_images: int = BLOCK_IMAGES
) -> Writing:
    """Return the predictions of data sets for a format to write, counted and reported to `progress` on their way."""
    outcome, n = Outcome(), sum(len(each.samples) for each in labelled)

    def counted() -> Iterator[Predictions]:
        for block in chain.from_iterable(each.blocks(block_images) for each in labelled):
            outcome.add(block, listing)
            yield block
            progress.counting("predicting", "images", outcome.n_images, n)

    files = merge_counts([each.files for each in labelled])
    return Writing(labelled[0].head, files, listing, counted(), outcome)
