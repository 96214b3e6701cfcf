"""Samples and manifests: the images of a data set.

Three layouts are read: a folder of class folders, with or without train/ val/ test/ above them; a flat folder, whose
samples have no label; a manifest (.csv, .tsv, .parquet) with a column `path` and optionally `label`, `split`, `group`.
Samples of folders are sorted by path, so that their order is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from featurecache.extract.images.read_options import ReadOptions

# Suffixes of the formats that Pillow reads without an external program or a plug-in. Importing Pillow would cost 0.2 s
# at every start, so they are listed here, and a test compares the list with Pillow's registry.
_SUFFIX_LIST = """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico .iim
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr
    .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm
"""
IMAGE_SUFFIXES = frozenset(_SUFFIX_LIST.split())
MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its label, split and group, if known.

    path: of the file. name: the path relative to the folder of the data set, which is shown to users.
    """

    path: str
    name: str
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The samples of one data set, in a fixed order, with notes on files that were left out.

    unreadable: folders that could not be listed; each has a note too. name: of the data set, the name of a manifest
    file without its suffix; empty if it is that of the folder. source, options: the arguments of `read_images`, for
    commands that are shown to the user.
    """

    root: Path
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = field(default=())
    unreadable: tuple[str, ...] = field(default=())
    name: str = ""
    source: str = field(default="", compare=False)
    options: ReadOptions = field(default=ReadOptions(), compare=False)

    @property
    def classes(self) -> list[str]:
        """The class names, sorted."""
        return sorted({sample.label for sample in self.samples if sample.label is not None})

    def __len__(self) -> int:
        return len(self.samples)


def merge(manifests: Iterable[Manifest]) -> Manifest:
    """Return several data sets as one, in the given order; names of samples are unchanged."""
    parts = list(manifests)
    samples = tuple(sample for part in parts for sample in part.samples)
    notes = tuple(note for part in parts for note in part.notes)
    return Manifest(parts[0].root, samples, notes, tuple(folder for part in parts for folder in part.unreadable))
