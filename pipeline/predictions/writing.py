"""Images labelled and written block by block: what every format takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from featurecache.base.progress import Progress
from featurecache.extract.images.manifest import IMAGE, Sample
from featurecache.predictions.columns import Listing
from featurecache.predictions.labelled import BLOCK_IMAGES, Predictions
from featurecache.predictions.outcome import Outcome

if TYPE_CHECKING:
    from featurecache.runs.file_counts import FileCounts


class ToLabel(Protocol):
    """Images that are labelled block by block, as `Labelled` does it."""

    @property
    def head(self) -> str:
        """The name of the head and its features."""

    @property
    def samples(self) -> Sequence[Sample]:
        """The images."""

    @property
    def files(self) -> FileCounts:
        """Every file of the data set, counted."""

    def blocks(self, size: int = BLOCK_IMAGES) -> Iterator[Predictions]:
        """Yield the labels of all images in their order."""


@dataclass(frozen=True)
class Writing:
    """Predictions on their way to a file.

    listing: the columns. blocks: of images, in their order, each labelled when it is asked for. outcome: of the blocks
    so far; of all behind the last.
    """

    labelled: Sequence[ToLabel]
    listing: Listing
    blocks: Iterable[Predictions]
    outcome: Outcome

    @property
    def head(self) -> str:
        """The name of the head and its features."""
        return self.labelled[0].head

    @property
    def files(self) -> FileCounts:
        """Every file of the data sets, counted; whole behind the last block, for some refuse images on the way."""
        from featurecache.runs.file_counts import merge_counts

        return merge_counts([each.files for each in self.labelled])


def begin_writing(
    labelled: Sequence[ToLabel],
    listing: Listing,
    progress: Progress,
    *,
    noun: str = IMAGE,
    block_images: int = BLOCK_IMAGES,
) -> Writing:
    """Return the predictions of data sets for a format to write, counted and reported to `progress` on their way.

    noun: what is labelled, images or rows of vectors.
    """
    outcome, n = Outcome(noun), sum(len(each.samples) for each in labelled)

    def counted() -> Iterator[Predictions]:
        for block in chain.from_iterable(each.blocks(block_images) for each in labelled):
            outcome.add(block, listing)
            yield block
            progress.counting("predicting", f"{noun}s", outcome.n_images, n)

    return Writing(labelled, listing, counted(), outcome)
