"""A folder or table of HDF5 files with several vectors each, such as the patches of a slide: their mean is the sample.

TRIDENT and CLAM write one such file for each slide, with a data set `features` (n, D) or (1, n, D); a file with one
vector (D,) is that. Folders above the files are classes, splits or groups as they are for images; where they are none,
a table says the labels, whose paths are these files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import ManifestError
from featurecache.base.text import count, printable
from featurecache.extract.images.class_names import remark_on_alike
from featurecache.extract.images.folders.layouts import Layout, find_layout, parse_layout
from featurecache.extract.images.folders.reading import Reading
from featurecache.extract.images.folders.skipped import count_below, is_own, skipped
from featurecache.extract.images.folders.tree import Folder
from featurecache.extract.images.formats import format_of
from featurecache.extract.images.left_out import (
    CLOSED_FOLDER,
    IMAGE_NEXT_TO_VECTORS,
    LINK_BACK,
    NO_IMAGE,
    OWN,
    REFUSED_IMAGE,
    LeftOut,
    Missed,
    Tally,
    suffix_of,
)
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.read_options import HDF5_SUFFIXES, ReadOptions
from featurecache.extract.images.vectors.choosing import FEATURES
from featurecache.extract.images.vectors.hdf5_file import Hdf5File
from featurecache.extract.images.vectors.opening import identity
from featurecache.extract.images.vectors.origin import find_origin, name_of
from featurecache.extract.images.vectors.rows import MOST_DIM, as_float32, digest_rows, rows_at_once
from featurecache.extract.images.vectors.vectors import Vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_TABLE = (
    "Put the files into one folder per class, or write a table with the columns path and label, where path is the name "
    "of a file."
)


def is_pooled(manifest: Manifest) -> bool:
    """Return whether a table names HDF5 files and nothing else."""
    return bool(manifest.samples) and all(suffix_of(each.path) in HDF5_SUFFIXES for each in manifest.samples)


def read_pooled_folder(root: Path, options: ReadOptions) -> Manifest:
    """Read a folder of HDF5 files as samples, a file each. Raises ManifestError."""
    tally = Tally()
    tree = _read_tree(root, tally)
    if not tree.n_below:
        raise ManifestError(
            f"'{printable(root)}' holds no file {' or '.join(HDF5_SUFFIXES)} with vectors. Name another."
        )
    levels = None if options.layout is None else parse_layout(options.layout)
    layout = find_layout(tree) if levels is None else Layout(levels)
    reading = Reading(tree, layout.levels)
    samples = [sample for folder in tree.below() for sample in reading.samples(folder, tally)]
    remarks = (*layout.remarks, *reading.remarks, *remark_on_alike({sample.label for sample in samples}))
    found = Manifest(root, tuple(sorted(samples, key=lambda s: s.name)), tally.left_out(), remarks, no_labels=NO_TABLE)
    return pool(found, options)


def pool(manifest: Manifest, options: ReadOptions) -> Manifest:
    """Return a data set of HDF5 files with the mean of the vectors in each; those that cannot be read are left out.

    Raises ManifestError where none can be read, or their vectors differ in length.
    """
    kept: list[Sample] = []
    means: list[NDArray[np.float32]] = []
    tally, n_vectors = Tally(), 0
    for sample in manifest.samples:
        try:
            mean, n = mean_of(Path(sample.path), options)
        except ManifestError as error:
            tally.count(REFUSED_IMAGE, suffix_of(sample.name))
            reason = str(error).removeprefix(f"'{printable(sample.path)}' ")
            tally.missed.append(Missed(sample.name, REFUSED_IMAGE.code, reason))
            continue
        if means and len(mean) != len(means[0]):
            raise ManifestError(
                f"'{printable(sample.name)}' has vectors of {len(mean):,} numbers and '{printable(kept[0].name)}' of "
                f"{len(means[0]):,}. Name files of one network."
            )
        kept.append(sample)
        means.append(mean)
        n_vectors += n
    if not kept:
        first = tally.missed[0]
        raise ManifestError(f"'{printable(manifest.samples[0].path)}' {first.reason}")
    rows = np.stack(means)
    digests = digest_rows(manifest.source or manifest.root, rows)
    stem = manifest.name or manifest.root.resolve().name
    origin = find_origin(name_of(stem), stem, rows.shape[1], {}, pooling="mean")
    means_of = f"Each sample is the mean of the vectors in its file: {count(len(kept), 'file')}, {n_vectors:,} vectors."
    notes = (means_of,) if n_vectors > len(kept) else ()
    return replace(
        manifest,
        samples=tuple(replace(sample, digest=bytes(digest)) for sample, digest in zip(kept, digests, strict=True)),
        left_out=LeftOut.merge([manifest.left_out, tally.left_out()]),
        remarks=(*manifest.remarks, *notes),
        vectors=Vectors(name_of(stem), origin.spec, origin.words, rows, digests),
    )


def mean_of(path: Path, options: ReadOptions) -> tuple[NDArray[np.float32], int]:
    """Return the mean (D,) of the vectors in an HDF5 file, and how many there are. Raises ManifestError."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ManifestError(f"'{printable(path)}' is not an ordinary file. Name a file of vectors that is one.")
    file, name = Hdf5File(path), options.features_column or FEATURES
    if name not in file.kinds:
        names = ", ".join(map(printable, file.kinds)) or "none"
        raise ManifestError(
            f"'{printable(path)}' has no data set '{printable(name)}' (found: {names}). Name the one with the vectors "
            "with --features-column."
        )
    shape = file.shape_of(name)
    *outer, n, dim = (1, *shape) if len(shape) == 1 else (shape or (0, 0))
    if any(side != 1 for side in outer) or not n or not 1 <= dim <= MOST_DIM:
        raise ManifestError(f"'{printable(path)}' has no vectors (n, D): '{printable(name)}' has the shape {shape}.")
    rows, total = file.stored_rows(name), np.zeros(dim)
    step = n if len(shape) != 2 else rows_at_once(dim)
    for start in range(0, n, step):
        found = rows[slice(None)] if len(shape) != 2 else rows[start : start + step]
        if found.dtype.kind not in "fiub":
            raise ManifestError(f"'{printable(path)}' has no numbers in '{printable(name)}' but {found.dtype}.")
        total += found.reshape(-1, dim).sum(axis=0, dtype=np.float64)
    mean = as_float32(total / n)
    if not np.isfinite(mean).all():
        raise ManifestError(f"'{printable(path)}' has numbers that are NaN or infinite. Compute its vectors again.")
    return mean, n


def _read_tree(root: Path, tally: Tally) -> Folder:
    """Return a folder with the HDF5 files below it, as a folder of images is read; other files are counted."""
    top = Folder(os.path.join(root, ""), ())  # noqa: PTH118 (pathlib drops the last separator)
    order: list[Folder] = []
    waiting: list[tuple[Folder, frozenset[tuple[int, int]]]] = [(top, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            place = identity(folder.prefix)
            entries = sorted(os.scandir(folder.prefix), key=lambda each: each.name)
        except OSError as error:
            tally.add(CLOSED_FOLDER, folder.path or folder.prefix, error.strerror or str(error))
            continue
        if place in above:
            tally.add(LINK_BACK, folder.path)
            continue
        order.append(folder)
        if folder.parts and is_own({entry.name for entry in entries}):
            count_below(folder.prefix, folder.path, OWN, tally)
            continue
        for entry in entries:
            _sort_in(entry, folder, tally)
        waiting += [(inner, above | {place}) for inner in folder.folders]
    _count(order)
    return top


def _sort_in(entry: os.DirEntry[str], folder: Folder, tally: Tally) -> None:
    name, suffix = entry.name, suffix_of(entry.name)
    if reason := skipped(name):
        if entry.is_dir(follow_symlinks=False):
            count_below(entry.path, "/".join((*folder.parts, name)), reason, tally)
        else:
            tally.add(reason, name)
    elif entry.is_dir():
        path = os.path.join(entry.path, "")  # noqa: PTH118 (pathlib drops the last separator)
        folder.folders.append(Folder(path, (*folder.parts, name), entry.is_symlink()))
    elif suffix in HDF5_SUFFIXES:
        folder.images.append(name)
    elif format_of(suffix) is not None:
        tally.add(IMAGE_NEXT_TO_VECTORS, "/".join((*folder.parts, name)))
    else:
        tally.add(NO_IMAGE, name)


def _count(order: Sequence[Folder]) -> None:
    by_parts = {folder.parts: folder for folder in order}
    for folder in sorted(order, key=lambda each: -len(each.parts)):
        folder.n_below += len(folder.images)
        if folder.parts:
            by_parts[folder.parts[:-1]].n_below += folder.n_below
