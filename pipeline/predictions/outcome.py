"""What is known once all images are labelled: how many labels are right, unknown or unsure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TypedDict

from featurecache.extract.images.manifest import IMAGE
from featurecache.predictions.columns import Listing
from featurecache.predictions.labelled import Predictions


class LabelledDocument(TypedDict):
    """How many labels are right, as JSON; unknown: {label: images}, the most frequent first."""

    right: int
    known: int
    unknown: dict[str, int]


@dataclass
class Outcome:
    """Counts over the blocks so far.

    noun: what is counted, images or rows of vectors. n_images: those that got a row. n_right, n_known: right ones, of
    those that have a label that the head has and are sure. unknown: those with a label that it does not have, by label.
    n_unsure: those that are less probable than they have to be.
    """

    noun: str = IMAGE
    n_images: int = 0
    n_right: int = 0
    n_known: int = 0
    n_unsure: int = 0
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, block: Predictions, listing: Listing) -> None:
        """Count a block of images."""
        import numpy as np

        sure = np.flatnonzero(listing.are_sure(block))
        own = replace(
            block, samples=tuple(block.samples[i] for i in sure), codes=block.codes[sure], proba=block.proba[sure]
        )
        n_right, n_known = own.accuracy()
        self.n_images += len(block.samples)
        self.n_right += n_right
        self.n_known += n_known
        self.n_unsure += len(block.samples) - len(sure)
        self.unknown.update(block.unknown_labels())

    def to_dict(self) -> LabelledDocument:
        """Return the counts of labels as JSON."""
        return {"right": self.n_right, "known": self.n_known, "unknown": dict(self.unknown.most_common())}
