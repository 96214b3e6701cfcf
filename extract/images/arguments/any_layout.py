"""Images to label: every image of several folders, tables and files, without regard to layouts and labels."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from featurecache.base.errors import ManifestError, NoSuchImages, UnfitOption
from featurecache.base.text import count_is, printable
from featurecache.extract.images.arguments.patterns import is_pattern, matching_paths
from featurecache.extract.images.arguments.standard_input import STANDARD_INPUT
from featurecache.extract.images.folders.scan import scan_any_layout
from featurecache.extract.images.formats import format_of
from featurecache.extract.images.left_out import BAD_ARGUMENT, CLOSED_FOLDER, NO_FILE, LeftOut, Missed, Tally, suffix_of
from featurecache.extract.images.manifest import Manifest, Sample, merge
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
    """Return what `read_data_sets` does, for images or one file of vectors. Raises UnfitOption for several."""
    sets = read_data_sets(images, options, classes=classes, strict=strict, cache_root=cache_root)
    if len(sets) > 1:
        raise UnfitOption("A file of vectors is read alone: name one at a time.")
    return sets[0]


def read_data_sets(
    images: Sequence[str],
    options: ReadOptions | None = None,
    *,
    classes: Collection[str] = (),
    strict: bool = False,
    cache_root: Path | None = None,
    listed: Collection[str] = (),
) -> list[Manifest]:
    """Return the samples of all arguments as a data set, and among what is left out the arguments that cannot be read.

    Of files of vectors, each is a data set.

    An argument may be a pattern, see `patterns`, unless it is `listed` by a program: a path as it is. Where there are
    several arguments, from a pattern too, names of samples begin with theirs, and where one is listed. classes: names
    of folders that are labels, see `scan_any_layout`. An argument that is given twice is read once, and an image in
    several is in the first; one that cannot be read costs none of the others. options: where tables and others are
    given, those of tables are for tables, and a layout for folders.

    Raises ManifestError where none can be read, and if `strict` for the first that cannot; UnfitOption in any case, and
    for images with vectors.
    """
    reading = _Reading(options or ReadOptions(), frozenset(classes), cache_root, strict=strict)
    places: dict[str, str] = {}
    listed = frozenset(listed)
    are_named, n_given = bool(listed), 0
    for each in images:
        matched = reading.matching(each) if each not in listed and is_pattern(each) else [each]
        are_named = are_named or matched != [each]
        n_given += len(matched)
        for path in matched:
            places.setdefault(_place(path), path)
    paths = list(places.values())
    reading.read(paths, are_named=are_named or len(paths) > 1)
    source = " ".join(dict.fromkeys(STANDARD_INPUT if each in listed else each for each in images))
    first, *others = reading.data_sets()
    if n_again := n_given - len(paths):
        remark = f"{count_is(n_again, 'path')} given again, and used once."
        first = replace(first, remarks=(remark, *first.remarks))
    return [replace(each, source=each.source or source, options=reading.given) for each in (first, *others)]


class _Reading:
    """The arguments that are read so far, and those that cannot be."""

    def __init__(self, given: ReadOptions, classes: Collection[str], cache_root: Path | None, *, strict: bool) -> None:
        self.given, self._classes, self._cache_root, self._strict = given, classes, cache_root, strict
        self._is_usual = given.is_usual or not given.given()
        self._found: list[Manifest] = []
        self._errors: list[ManifestError] = []
        self._refused = Tally()

    def matching(self, pattern: str) -> list[str]:
        """Return what a pattern matches; where that is nothing, it is refused."""
        try:
            found, closed = matching_paths(pattern)
        except NoSuchImages as error:
            self._refuse(pattern, error)
            return []
        for folder in closed:
            self._refused.add(CLOSED_FOLDER, folder)
        return found

    def read(self, paths: Sequence[str], *, are_named: bool) -> None:
        """Read every path; are_named: whether names of samples begin with it."""
        is_mixed = len(set(map(is_table, paths))) > 1
        for is_image, group in groupby(paths, self._is_plain_image):
            if is_image:
                self._found.append(self._images(list(group), are_named=are_named))
                continue
            for each in group:
                own = self.given.about(tables=is_table(each)) if is_mixed else self.given
                try:
                    self._found.append(_read(each, own, self._classes, self._cache_root, several=are_named))
                except UnfitOption:
                    raise
                except ManifestError as error:
                    self._refuse(each, error)

    def _is_plain_image(self, path: str) -> bool:
        """Return whether a path is that of an image by its suffix: lists of files may have millions."""
        named = format_of(suffix_of(os.path.basename(path)))  # noqa: PTH119 (as above)
        return self._is_usual and named is not None and named.is_readable() and os.path.isfile(path)  # noqa: PTH113

    def _images(self, paths: Sequence[str], *, are_named: bool) -> Manifest:
        samples = tuple(Sample(path, path if are_named else os.path.basename(path)) for path in paths)  # noqa: PTH119
        return Manifest(Path(paths[0]).parent, samples)

    def _refuse(self, argument: str, error: ManifestError) -> None:
        if self._strict:
            raise error
        self._errors.append(error)
        reason = BAD_ARGUMENT if os.path.isfile(argument) else NO_FILE  # noqa: PTH113 (as above)
        self._refused.count(reason, "" if reason.is_folder else suffix_of(argument))
        text = str(error).removeprefix(f"'{printable(argument)}' ")
        self._refused.missed.append(Missed(argument, reason.code, text))

    def data_sets(self) -> list[Manifest]:
        """Return all images as one data set, or every file of vectors. Raises ManifestError where there are none."""
        found, errors = self._found, self._errors
        n = len(found) + len(errors)
        of_vectors = [each for each in found if each.vectors is not None]
        if of_vectors and len(of_vectors) < len(found):
            raise UnfitOption("Images and vectors are labelled apart: name files of vectors, or images.")
        if not found and n == 1:
            raise errors[0]
        first = next(iter(self._refused.missed), None)
        if not found and first is not None:
            if not errors:  # all that a pattern leads to are closed folders
                raise ManifestError(f"'{printable(first.name)}': {first.reason}.")
            kind = NoSuchImages if all(isinstance(error, NoSuchImages) for error in errors) else ManifestError
            raise kind(
                f"None of the {n} arguments holds an image; the first, '{printable(first.name)}': {first.reason}"
            )
        own, *others = found if of_vectors else [_once_each(found)]
        return [replace(own, left_out=LeftOut.merge([self._refused.left_out(), own.left_out])), *others]


def _place(path: str) -> str:
    return os.path.abspath(path) if path else ""  # noqa: PTH100 (links as named)


def _once_each(found: Sequence[Manifest]) -> Manifest:
    """Return several data sets as one, without the images that are in an earlier one too; a remark says how many."""
    if len(found) == 1:
        return merge(found)
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
        samples = [
            replace(s, name=(Path(images).parent / s.name).as_posix()) if several else s for s in vectors.samples
        ]
        return replace(vectors, samples=tuple(samples), source=images)
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
