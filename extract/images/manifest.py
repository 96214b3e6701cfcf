"""Samples and manifests: the images of a data set.

Three shapes are read. A folder of class folders, with or without train/ val/ test/ above them; a flat folder, whose
samples have no label; a manifest (.csv, .tsv, .parquet) with a column `path` and optionally `label`, `split`, `group`.
Samples come sorted by their path, so that the same images give the same order on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

# What Pillow reads as a still picture by itself, without an outside program or a plug-in. Asking Pillow costs 0.2 s at
# every start, so the list is here and a test compares it with Pillow's own registry.
_SUFFIX_LIST = """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico .iim
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr
    .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm
"""
IMAGE_SUFFIXES = frozenset(_SUFFIX_LIST.split())
MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and what is known of it.

    `path` opens the file; `name` is the path as users know it, relative to the folder they named.
    """

    path: str
    name: str
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The samples of one data set, in a fixed order, with what was left out and why.

    `unreadable`: the folders whose images, if there are any, could not be seen; each has its note too. `name`: what the
    data set is called, that of a manifest file without its suffix; empty where it is that of the folder. `source`: the
    folder or file as it was named to `read_images`, for commands that name it again.
    """

    root: Path
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = field(default=())
    unreadable: tuple[str, ...] = field(default=())
    name: str = ""
    source: str = field(default="", compare=False)

    @property
    def classes(self) -> list[str]:
        """The class names, sorted."""
        return sorted({sample.label for sample in self.samples if sample.label is not None})

    def __len__(self) -> int:
        return len(self.samples)


def merge(manifests: Iterable[Manifest]) -> Manifest:
    """Several data sets as one, in the order given; names are kept as each had them."""
    parts = list(manifests)
    samples = tuple(sample for part in parts for sample in part.samples)
    notes = tuple(note for part in parts for note in part.notes)
    return Manifest(parts[0].root, samples, notes, tuple(folder for part in parts for folder in part.unreadable))
