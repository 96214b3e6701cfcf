"""Images to label: every image of several folders, tables and files, without regard to layouts and labels."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from featurecache.base.errors import ManifestError
from featurecache.base.text import printable
from featurecache.extract.images.folders.scan import scan_any_layout
from featurecache.extract.images.left_out import BAD_ARGUMENT, NO_FILE, LeftOut, Missed, Tally, suffix_of
from featurecache.extract.images.manifest import Manifest, merge
from featurecache.extract.images.read import read_images
from featurecache.extract.images.read_options import ReadOptions


def read_any_layout(
    images: Sequence[str],
    options: ReadOptions | None = None,
    *,
    classes: Collection[str] = (),
    strict: bool = False,
    cache_root: Path | None = None,
) -> Manifest:
    """Return the samples of all arguments, and among what is left out the arguments that cannot be read.

    With several arguments, names of samples begin with theirs. classes: names of folders that are labels, see
    `scan_any_layout`. An argument of several that cannot be read costs none of the others.

    Raises ManifestError where none can be read, and if `strict` for the first that cannot.
    """
    found: list[Manifest] = []
    refused = Tally()
    for each in images:
        try:
            found.append(_read(each, options, frozenset(classes), cache_root, several=len(images) > 1))
        except ManifestError as error:
            if strict or len(images) == 1:
                raise
            reason = BAD_ARGUMENT if os.path.isfile(each) else NO_FILE  # noqa: PTH113 (as above)
            refused.count(reason, "" if reason.is_folder else suffix_of(each))
            refused.missed.append(Missed(each, reason.code, str(error).removeprefix(f"'{printable(each)}' ")))
    if not found:
        first = refused.missed[0]
        raise ManifestError(
            f"None of the {len(images)} arguments holds an image; the first, '{printable(first.name)}': {first.reason}"
        )
    together = merge(found)
    left_out = LeftOut.merge([refused.left_out(), together.left_out])
    return replace(together, left_out=left_out, source=" ".join(images), options=options or ReadOptions())


def _read(
    images: str, options: ReadOptions | None, classes: Collection[str], cache_root: Path | None, *, several: bool
) -> Manifest:
    """Return the samples of one argument; with several, names begin with the argument, so that two `1.png` differ."""
    is_folder = os.path.isdir(images)  # noqa: PTH112 (pathlib's own raises where a name is too long)
    manifest = (
        scan_any_layout(images, classes, cache_root=cache_root)
        if is_folder
        else read_images(images, options, cache_root=cache_root)
    )
    if not several:
        return manifest
    path = Path(images)
    named = (path if sample.path == str(path) else path / sample.name for sample in manifest.samples)
    samples = [replace(s, name=name.as_posix()) for s, name in zip(manifest.samples, named, strict=True)]
    left_out = manifest.left_out.renamed(lambda name: (path / name).as_posix())
    return replace(manifest, samples=tuple(samples), left_out=left_out)
