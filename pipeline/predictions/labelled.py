"""The labels of images by a head: of all of them, or block by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurecache.base.text import printable
from featurecache.extract.images.manifest import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.runs.file_counts import FileCounts

# Images that are labelled at once: 2,048 numbers each are 32 MB.
BLOCK_IMAGES = 4096


@dataclass(frozen=True)
class Predictions:
    """One label per image: `codes` (N,) into classes, `proba` (N, C).

    samples are the images that have one; files: how many there are, and all others by reason.
    """

    head: str
    classes: list[str]
    samples: tuple[Sample, ...]
    codes: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    files: FileCounts

    def rows(self) -> list[tuple[str, str, float]]:
        """Path, label and its probability, an image a row."""
        return [
            (sample.name, self.classes[code], float(row[code]))
            for sample, code, row in zip(self.samples, self.codes, self.proba, strict=True)
        ]

    def accuracy(self) -> tuple[int, int]:
        """Return how many images are right of those with a label that the head has, and how many these are.

        `unknown_labels` counts the others.
        """
        known = set(self.classes)
        pairs = zip(map(label_of, self.samples), self.codes, strict=True)
        labelled = [(label, self.classes[code]) for label, code in pairs if label in known]
        return sum(label == predicted for label, predicted in labelled), len(labelled)

    def unknown_labels(self) -> dict[str, int]:
        """Return {label: number of images} of the labels that the head does not have, the most frequent first."""
        known = set(self.classes)
        labels = Counter(label for label in map(label_of, self.samples) if label and label not in known)
        return dict(labels.most_common())


@dataclass(frozen=True)
class Labelled:
    """The images of a data set that have features, which are labelled block by block.

    samples: the N images that get a label. files: how many there are, and all others by reason. answers: the codes (n,)
    and probabilities (n, C) of a slice of the images.
    """

    head: str
    classes: list[str]
    samples: tuple[Sample, ...]
    files: FileCounts
    answers: Callable[[slice], tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]

    def block(self, rows: slice) -> Predictions:
        """Return the labels of a slice of the images."""
        codes, proba = self.answers(rows)
        return Predictions(self.head, self.classes, self.samples[rows], codes, proba, self.files)

    def blocks(self, size: int = BLOCK_IMAGES) -> Iterator[Predictions]:
        """Yield the labels of all images in their order, so many at a time."""
        for start in range(0, len(self.samples), size):
            yield self.block(slice(start, start + size))


def label_of(sample: Sample) -> str:
    """Return the label of an image by the name that it is printed with, as heads keep it; empty for none."""
    return printable(sample.label) if sample.label else ""
