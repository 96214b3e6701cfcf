"""A folder, a table or one image as a Manifest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from featurecache.base.errors import ManifestError, NoSuchImages
from featurecache.base.text import printable
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.images.formats import format_of
from featurecache.extract.images.left_out import suffix_of
from featurecache.extract.images.manifest import MANIFEST_SUFFIXES, Manifest, Sample
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.read_table import read_manifest

# Of tables: what is read, and what is not.
TABLE_SUFFIXES = (*MANIFEST_SUFFIXES, ".txt")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")


def read_images(images: str | os.PathLike[str], options: ReadOptions | None = None) -> Manifest:
    """Read a folder, a manifest or a single image file as samples.

    options: which columns of a table mean what, and the like; the usual ones where not given.

    Raises NoSuchImages when there is nothing there, ManifestError when there is nothing in it.
    """
    options = options or ReadOptions()
    return replace(_read(Path(images), options), source=str(images), options=options)


def _read(path: Path, options: ReadOptions) -> Manifest:
    suffix = path.suffix.lower()
    is_folder = os.path.isdir(path)  # noqa: PTH112 (pathlib's own raises where a name is too long or a folder is closed)
    if not is_folder and not os.path.exists(path):  # noqa: PTH110
        raise NoSuchImages(f"There is no folder or file '{printable(path)}'. Check the path.")
    if not is_folder and suffix in TABLE_SUFFIXES:
        if options.layout is not None and not options.is_usual:
            raise ManifestError(f"'{printable(path)}' is a table, and --layout is about folders: leave it out.")
        return read_manifest(path, options)
    if (given := options.of_tables()) and not options.is_usual:
        raise ManifestError(
            f"'{printable(path)}' is no table, and {given[0]} is about tables: leave it out, or name a table."
        )
    if is_folder:
        return scan_folder(path, options.layout)
    kind = format_of(suffix_of(path.name))
    if kind is not None and kind.is_readable():
        return Manifest(path.parent, (Sample(str(path), path.name),))
    if kind is not None:
        raise ManifestError(f"'{printable(path)}' cannot be read: {kind.without.text()}.")
    if suffix in SPREADSHEETS:
        raise ManifestError(
            f"'{printable(path)}' is a spreadsheet, which is not read. "
            "Save its sheet as 'CSV UTF-8 (.csv)' and name that file."
        )
    raise ManifestError(
        f"'{printable(path)}' is neither a folder, an image nor a manifest. "
        f"A manifest ends in {', '.join(TABLE_SUFFIXES)} and has a column 'path'."
    )
