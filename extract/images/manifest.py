"""Samples and manifests: the images of a data set.

Read are folders in one of the layouts of `folders.layouts`, such as class folders with or without splits, and a flat
folder, whose samples have no label; and a manifest (.csv, .tsv, .parquet) with a column `path` and optionally `label`,
`split`, `group`.
Samples of folders are sorted by path, so that their order is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.text import count, printable
from featurecache.extract.images.class_names import in_order
from featurecache.extract.images.left_out import CLOSED_FOLDER, LeftOut
from featurecache.extract.images.read_options import ReadOptions

if TYPE_CHECKING:
    from featurecache.extract.images.vectors.vectors import Vectors

# What samples are called in messages.
IMAGE, ROW = "image", "row"
MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")


# Not frozen: that makes it four times as slow to create, and large data sets have millions.
@dataclass(slots=True, unsafe_hash=True)
class Sample:
    """One image with its label, split and group, if known; it is never changed.

    path: of the file. name: the path relative to the folder of the data set, which is shown to users. digest: its
    SHA-256 as a table says it, 32 bytes.
    """

    path: str
    name: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    digest: bytes | None = None


@dataclass(frozen=True)
class Manifest:
    """The samples of one data set, in a fixed order, and what else is there.

    left_out: the files that are not samples, counted. remarks: how the folder or table was read, where that needs
    words. name: of the data set, the name of a manifest file without its suffix; empty if it is that of the folder.
    source, options: the arguments of `read_images`, for commands that are shown to the user. no_labels: why
    none has a label, for a table without such a column. vectors: of the samples, one each, where these are read from a
    file in place of images; then no backbone, no cache and no image is needed.
    """

    root: Path
    samples: tuple[Sample, ...]
    left_out: LeftOut = field(default=LeftOut())
    remarks: tuple[str, ...] = field(default=())
    name: str = ""
    no_labels: str = field(default="", compare=False)
    source: str = field(default="", compare=False)
    options: ReadOptions = field(default=ReadOptions(), compare=False)
    vectors: Vectors | None = field(default=None, compare=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on how it was read and on what is left out."""
        return (*self.remarks, *self.left_out.sentences())

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Names of folders whose images could not be seen."""
        return self.left_out.names(CLOSED_FOLDER)

    @property
    def noun(self) -> str:
        """What its samples are, in messages."""
        return IMAGE if self.vectors is None else ROW

    @property
    def classes(self) -> list[str]:
        """The class names in order: by value where all are numbers."""
        return in_order({sample.label for sample in self.samples if sample.label is not None})

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        known = f"{count(len(self), self.noun)}, {count(len(self.classes), 'class', 'classes')}"
        return f"<Manifest of {known}: {printable(self.name or self.root.name)}>"


def no_manifest(images: object) -> str:
    """Return a sentence on what is no Manifest, such as the path or the array of a program; empty for a Manifest."""
    if isinstance(images, Manifest):
        return ""
    return (
        f"The images are a {type(images).__name__} and have to be a Manifest: give what read_images returns for a "
        "path, or read_arrays for vectors."
    )


def merge(manifests: Iterable[Manifest]) -> Manifest:
    """Return several data sets as one, in the given order; names of samples are unchanged."""
    parts = list(manifests)
    samples = tuple(sample for part in parts for sample in part.samples)
    remarks = tuple(remark for part in parts for remark in part.remarks)
    return Manifest(parts[0].root, samples, LeftOut.merge(part.left_out for part in parts), remarks)
