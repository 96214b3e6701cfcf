"""A folder of images as a Manifest: its layout found out or as it is named, every file a sample or counted."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path

from featurecache.base.errors import ManifestError
from featurecache.base.garbage import no_garbage_search
from featurecache.base.text import printable
from featurecache.extract.images.class_names import remark_on_alike, remark_on_origins, remark_on_several
from featurecache.extract.images.first_bytes import read_formats
from featurecache.extract.images.folders.layouts import LEAF, Layout, find_layout, parse_layout
from featurecache.extract.images.folders.reading import Reading
from featurecache.extract.images.folders.split_names import SPLIT_NAMES
from featurecache.extract.images.folders.tree import read_tree
from featurecache.extract.images.left_out import EMPTY_CLASS, Tally
from featurecache.extract.images.manifest import Manifest, Sample


@no_garbage_search()
def scan_folder(root: str | os.PathLike[str], layout: str | None = None, *, cache_root: Path | None = None) -> Manifest:
    """Read a folder of images in its layout: class folders, splits above or below them, or flat.

    layout: the levels of folders, see `layouts`; None to find them out. cache_root: where the format of files is
    remembered whose name does not say it. Raises ManifestError when the folder holds no
    image, or can be read in two ways; RequestError for a layout that there is not.
    """
    levels = None if layout is None else parse_layout(layout)
    tally = Tally()
    tree = read_tree(root, tally, partial(read_formats, cache_root=cache_root))
    found = find_layout(tree) if levels is None else Layout(levels)
    reading = Reading(tree, found.levels)
    samples: list[Sample] = []
    empty: dict[str, str] = {}
    dated: set[str] = set()
    for folder in tree.below():
        if folder.images:
            dated.add("-".join(folder.parts[: len(found.levels)]))  # of 2021/03 the class is 03
        samples += reading.samples(folder, tally)
        folder.images.clear()
        if folder.n_foreign and not folder.n_below and reading.is_class(folder):
            empty.setdefault(folder.name, folder.path)
    all_labels = [sample.label for sample in samples]
    labels = set(all_labels)
    for name, path in empty.items():
        if name not in labels:
            tally.add(EMPTY_CLASS, path)
    origins = () if levels is not None else remark_on_origins(labels) or remark_on_origins(dated)
    several = () if LEAF in found.levels else remark_on_several(all_labels)  # a path is no list of labels
    remarks = (*found.remarks, *reading.remarks, *several, *remark_on_alike(labels), *origins)
    return _manifest(Path(root), samples, tally, remarks)


@no_garbage_search()
def scan_any_layout(
    root: str | os.PathLike[str],
    classes: Collection[str] = (),
    *,
    layout: str | None = None,
    is_usual: bool = False,
    cache_root: Path | None = None,
) -> Manifest:
    """Return every image at any depth below a folder, whatever its layout: for images that need no label.

    The label of an image is the topmost folder above it that is one of `classes`, else the topmost that is no split;
    directly in `root` it has none. layout: how labels are read instead; if it `is_usual`, that of another folder, only
    where that gives one of `classes`. Raises ManifestError when the folder holds no image, not even one that is left
    out; RequestError for a layout that there is not.
    """
    levels = None if layout is None else parse_layout(layout)
    tally = Tally()
    tree = read_tree(root, tally, partial(read_formats, cache_root=cache_root))
    reading = None if levels is None else Reading(tree, levels)
    samples: list[Sample] = []
    for folder in tree.below():
        label, above = _label_of(folder.parts, classes), "/".join((*folder.parts, ""))
        if reading is not None:
            own = reading.meaning(folder).label
            label = own if not is_usual or (own is not None and printable(own) in classes) else label
        samples += [Sample(folder.prefix + name, above + name, label) for name in folder.images]
    left_out = tally.left_out()
    if not samples and left_out.missed:
        return Manifest(Path(root), (), left_out)
    return _manifest(Path(root), samples, tally, () if reading is None or is_usual else tuple(reading.remarks))


def _label_of(folders: Sequence[str], classes: Collection[str]) -> str | None:
    """Return the label of the images in a folder; folders: the names that lead to it."""
    known = [folder for folder in folders if printable(folder) in classes]
    named = [folder for folder in folders if folder.lower() not in SPLIT_NAMES]
    return next(iter([*known, *named]), None)


def _manifest(root: Path, samples: list[Sample], tally: Tally, remarks: tuple[str, ...]) -> Manifest:
    """Return the samples in order with what was left out. Raises ManifestError where there are none."""
    left_out = tally.left_out()
    if not samples:
        found = f" ({' '.join(left_out.sentences())})" if left_out.counts else ""
        raise ManifestError(
            f"'{printable(root)}' holds no images{found}. "
            "Put one folder per class into it, or images without folders to extract or predict only."
        )
    in_ascii = all(sample.name.isascii() for sample in samples)
    samples.sort(key=attrgetter("name") if in_ascii else lambda sample: os.fsencode(sample.name))
    return Manifest(root, tuple(samples), left_out, remarks)
