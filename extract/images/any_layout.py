"""Images to label: every image of several folders, tables and files, without regard to layouts and labels."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from featurecache.base.errors import ManifestError, NoSuchImages, UnfitOption
from featurecache.base.text import count_is, printable
from featurecache.extract.images.folders.scan import scan_any_layout
from featurecache.extract.images.left_out import BAD_ARGUMENT, NO_FILE, LeftOut, Missed, Tally, suffix_of
from featurecache.extract.images.manifest import Manifest, merge
from featurecache.extract.images.read import check_options, is_table, read_as_vectors, read_images
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
    `scan_any_layout`. An argument that is given twice is read once, and an image in several is in the first; one that
    cannot be read costs none of the others. options: where tables and others are given, those of tables are for
    tables, and a layout for folders. Vectors are read from one argument alone.

    Raises ManifestError where none can be read, and if `strict` for the first that cannot; UnfitOption in any case.
    """
    found: list[Manifest] = []
    errors: list[ManifestError] = []
    refused, given = Tally(), options or ReadOptions()
    is_mixed = len(set(map(is_table, images))) > 1
    first_at: dict[str, str] = {}
    for each in images:
        first_at.setdefault(_place(each), each)
    images = list(first_at.values())
    for each in images:
        own = given.about(tables=is_table(each)) if is_mixed else given
        try:
            found.append(_read(each, own, frozenset(classes), cache_root, several=len(images) > 1))
        except UnfitOption:
            raise
        except ManifestError as error:
            if strict or len(images) == 1:
                raise
            errors.append(error)
            reason = BAD_ARGUMENT if os.path.isfile(each) else NO_FILE  # noqa: PTH113 (as above)
            refused.count(reason, "" if reason.is_folder else suffix_of(each))
            refused.missed.append(Missed(each, reason.code, str(error).removeprefix(f"'{printable(each)}' ")))
    if len(found) + len(errors) > 1 and any(each.vectors is not None for each in found):
        raise UnfitOption("A file of vectors is read alone: name one at a time, and no images with it.")
    if not found:
        first = refused.missed[0]
        kind = NoSuchImages if all(isinstance(error, NoSuchImages) for error in errors) else ManifestError
        raise kind(
            f"None of the {len(images)} arguments holds an image; the first, '{printable(first.name)}': {first.reason}"
        )
    together = _once_each(found)
    left_out = LeftOut.merge([refused.left_out(), together.left_out])
    return replace(together, left_out=left_out, source=" ".join(images), options=given)


def _place(path: str) -> str:
    return os.path.abspath(path) if path else ""  # noqa: PTH100 (links as named)


def _once_each(found: Sequence[Manifest]) -> Manifest:
    """Return several data sets as one, without the images that are in an earlier one too; a remark says how many."""
    if len(found) == 1:
        return found[0] if found[0].vectors is not None else merge(found)
    seen: set[str] = set()
    parts, n_again = [], 0
    for part in found:
        places = [_place(sample.path) for sample in part.samples]
        samples = tuple(s for s, place in zip(part.samples, places, strict=True) if place not in seen)
        n_again += len(places) - len(samples)
        seen.update(places)
        parts.append(replace(part, samples=samples))
    together = merge(parts)
    if not n_again:
        return together
    remark = f"{count_is(n_again, 'image')} in several arguments, and used once."
    return replace(together, remarks=(*together.remarks, remark))


def _read(
    images: str, options: ReadOptions, classes: Collection[str], cache_root: Path | None, *, several: bool
) -> Manifest:
    """Return the samples of one argument; with several, names begin with the argument, so that two `1.png` differ."""
    if os.path.exists(images) and (vectors := read_as_vectors(Path(images), options)) is not None:  # noqa: PTH110
        return vectors
    if os.path.isdir(images):  # noqa: PTH112 (pathlib's own raises where a name is too long)
        check_options(images, options)
        manifest = scan_any_layout(
            images, classes, layout=options.layout, is_usual=options.is_usual, cache_root=cache_root
        )
    else:
        manifest = read_images(images, options, cache_root=cache_root)
    if not several:
        return manifest
    path = Path(images)
    named = (path if sample.path == str(path) else path / sample.name for sample in manifest.samples)
    samples = [replace(s, name=name.as_posix()) for s, name in zip(manifest.samples, named, strict=True)]
    left_out = manifest.left_out.renamed(lambda name: (path / name).as_posix())
    return replace(manifest, samples=tuple(samples), left_out=left_out)
