"""A folder, a table, one image or a file of vectors as a Manifest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from featurecache.base.errors import ManifestError, NoSuchImages, UnfitOption
from featurecache.base.text import printable
from featurecache.extract.images.first_bytes import read_formats
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.images.formats import NO_IMAGE_SUFFIXES, Format, format_of, may_be_read
from featurecache.extract.images.left_out import suffix_of
from featurecache.extract.images.manifest import MANIFEST_SUFFIXES, Manifest, Sample
from featurecache.extract.images.read_options import HDF5_SUFFIXES, VECTOR_SUFFIXES, VECTORS, ReadOptions
from featurecache.extract.images.tables.read_table import read_manifest

# Of tables: what is read, and what is not.
TABLE_SUFFIXES = (*MANIFEST_SUFFIXES, ".txt")
# Of arrays, as other tools write them; several are unpickled, which is never done.
ARRAY_SUFFIXES = (".npy", ".pt", ".pkl", ".pickle", ".mat")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")


def read_images(
    images: str | os.PathLike[str], options: ReadOptions | None = None, *, cache_root: Path | None = None
) -> Manifest:
    """Read a folder, a manifest, a single image file or a file of vectors as samples.

    options: what folders and columns of a table mean; the usual ones where not given. cache_root: the folder of the
    caches, where the format of files is remembered whose name does not say it.

    Raises NoSuchImages when there is nothing there, ManifestError when there is nothing in it.
    """
    options = options or ReadOptions()
    if not os.fspath(images):
        raise NoSuchImages("The name of the images is empty. Name a folder, a table or an image.")
    return replace(_read(Path(images), options, cache_root), source=str(images), options=options)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names a table, and no folder."""
    return os.path.splitext(path)[1].lower() in TABLE_SUFFIXES and not _is_folder(path)  # noqa: PTH122 (as below)


def check_options(path: str | os.PathLike[str], options: ReadOptions) -> None:
    """Raise UnfitOption for options that mean nothing for a table, or for anything else."""
    if options.is_usual:
        return
    if is_table(path) and options.layout is not None:
        raise UnfitOption(f"'{printable(path)}' is a table, and --layout is about folders: leave it out.")
    if not is_table(path) and (given := options.of_tables()):
        raise UnfitOption(
            f"'{printable(path)}' is no table, and {given[0]} is about tables: leave it out, or name a table."
        )


def _is_folder(path: str | os.PathLike[str]) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (pathlib's own raises where a name is too long or a folder is closed)


def _read(path: Path, options: ReadOptions, cache_root: Path | None) -> Manifest:
    suffix = path.suffix.lower()
    is_folder = _is_folder(path)
    if not is_folder and not os.path.exists(path):  # noqa: PTH110
        raise NoSuchImages(f"There is no folder or file '{printable(path)}'. Check the path.")
    if (vectors := read_as_vectors(path, options)) is not None:
        return vectors
    check_options(path, options)
    if is_table(path):
        return _of_table(path, options)
    if is_folder:
        return scan_folder(path, options.layout, cache_root=cache_root)
    if suffix in SPREADSHEETS:
        raise ManifestError(
            f"'{printable(path)}' is a spreadsheet, which is not read. "
            "Save its sheet as 'CSV UTF-8 (.csv)' and name that file."
        )
    named = format_of(suffix_of(path.name))
    if named is not None and named.is_readable():
        return Manifest(path.parent, (Sample(str(path), path.name),))
    seen = _look_at(path)
    if seen is not None and may_be_read(named, seen):
        return Manifest(path.parent, (Sample(str(path), path.name),))
    if (found := named or seen) is not None:
        raise ManifestError(f"'{printable(path)}' cannot be read: {found.without.text()}.")
    raise ManifestError(
        f"'{printable(path)}' is neither a folder, an image nor a manifest. "
        f"A manifest ends in {', '.join(TABLE_SUFFIXES)} and has a column 'path'."
    )


def read_as_vectors(path: Path, options: ReadOptions) -> Manifest | None:
    """Read a file or folder of vectors as samples; None for what is none. Raises ManifestError."""
    if not _is_folder(path) and not is_table(path) and path.suffix.lower() not in VECTOR_SUFFIXES:
        if path.suffix.lower() in ARRAY_SUFFIXES:
            raise ManifestError(
                f"'{printable(path)}' is not read: vectors are read from .npz, .h5, .parquet or .csv. Save them with "
                f"np.savez('{printable(path.stem)}.npz', features=X, labels=y), and name that file."
            )
        if options.as_ == VECTORS and not options.is_usual:
            raise UnfitOption(
                f"'{printable(path)}' is not read as vectors: name a file {', '.join(VECTOR_SUFFIXES)} or a table."
            )
        return None
    from featurecache.extract.images.vectors.opening import holds_vectors  # numpy takes a while to load
    from featurecache.extract.images.vectors.read_vectors import read_vectors

    return read_vectors(path, options) if holds_vectors(path, options) else None


def _of_table(path: Path, options: ReadOptions) -> Manifest:
    """Read a table of images, or of HDF5 files with vectors."""
    manifest = read_manifest(path, options)
    if not manifest.samples or not manifest.samples[0].path.lower().endswith(HDF5_SUFFIXES):
        return manifest
    from featurecache.extract.images.vectors.pooled import is_pooled, pool

    return pool(manifest, options) if is_pooled(manifest) else manifest


def _look_at(path: Path) -> Format | None:
    """Return the image format of a file by its first bytes; None for no image, and for what is no ordinary file."""
    if suffix_of(path.name) in NO_IMAGE_SUFFIXES or not path.is_file():
        return None
    (found,) = read_formats([str(path)])
    return found if isinstance(found, Format) else None
