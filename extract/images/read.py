"""A folder, a table or one image as a Manifest."""

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
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.read_table import read_manifest

# Of tables: what is read, and what is not.
TABLE_SUFFIXES = (*MANIFEST_SUFFIXES, ".txt")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")


def read_images(
    images: str | os.PathLike[str], options: ReadOptions | None = None, *, cache_root: Path | None = None
) -> Manifest:
    """Read a folder, a manifest or a single image file as samples.

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
    check_options(path, options)
    if is_table(path):
        return read_manifest(path, options)
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


def _look_at(path: Path) -> Format | None:
    """Return the image format of a file by its first bytes; None for no image, and for what is no ordinary file."""
    if suffix_of(path.name) in NO_IMAGE_SUFFIXES or not path.is_file():
        return None
    (found,) = read_formats([str(path)])
    return found if isinstance(found, Format) else None
