"""Images that are decoded and labelled as their block is asked for, where no cache holds their features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from featurecache.extract.images.left_out import LeftOut
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.predictions.labelled import BLOCK_IMAGES, Labelled, Predictions

if TYPE_CHECKING:
    from featurecache.extract.images.digests import Refusal
    from featurecache.runs.file_counts import FileCounts

# Images of a block, of which each costs a network's time and is reported.
MOST_OF_A_BLOCK = 256


class LabelledOnTheWay:
    """The images of a data set, of which some may be refused when they are decoded.

    head: its name. label: returns the labels of a block as a data set, which has no notes. samples: all N images.
    """

    def __init__(self, head: str, images: Manifest, label: Callable[[Manifest], Labelled]) -> None:
        self.head, self.samples = head, images.samples
        self._images, self._label = images, label
        self._used: list[Sample] = []
        self._refusals: list[Refusal] = []

    @property
    def files(self) -> FileCounts:
        """Every file of the data set, counted; whole behind the last block."""
        from featurecache.runs.file_counts import count_files

        return count_files(self._images, self._used, tuple(self._refusals), needs_labels=False)

    def blocks(self, size: int = BLOCK_IMAGES) -> Iterator[Predictions]:
        """Yield the labels of all images in their order, without those that are refused. Raises what `label` raises."""
        size = min(size, MOST_OF_A_BLOCK)
        for start in range(0, len(self.samples), size):
            block = self.samples[start : start + size]
            images = replace(self._images, samples=block, left_out=LeftOut(), remarks=())
            part = self._label(images)
            self._used += part.samples
            self._refusals += part.files.refusals
            if part.samples:
                yield part.block(slice(None))
