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
from featurecache.extract.images.tables import read_manifest


def read_images(images: str | os.PathLike[str], options: ReadOptions | None = None) -> Manifest:
    """Read a folder, a manifest or a single image file as samples.

    options: which columns of a table mean what, and the like; the usual ones where not given.

    Raises NoSuchImages when there is nothing there, ManifestError when there is nothing in it.
    """
    options = options or ReadOptions()
    return replace(_read(Path(images), options), source=str(images), options=options)


def _read(path: Path, options: ReadOptions) -> Manifest:
    if os.path.isdir(path):  # noqa: PTH112 (pathlib's own raises where a name is too long or a folder is closed)
        return scan_folder(path, options.layout)
    if not os.path.exists(path):  # noqa: PTH110
        raise NoSuchImages(f"There is no folder or file '{printable(path)}'. Check the path.")
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return read_manifest(path, options)
    kind = format_of(suffix_of(path.name))
    if kind is not None and kind.is_readable():
        return Manifest(path.parent, (Sample(str(path), path.name),))
    if kind is not None:
        raise ManifestError(f"'{printable(path)}' cannot be read: {kind.without.text()}.")
    raise ManifestError(
        f"'{printable(path)}' is neither a folder, an image nor a manifest. "
        f"A manifest ends in {', '.join(MANIFEST_SUFFIXES)} and has a column 'path'."
    )
