"""The files and folders below a folder: one listing a folder, links followed without cycles, everything counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featurecache.extract.images.folders.skipped import count_below, is_own, skipped
from featurecache.extract.images.formats import (
    DICOM,
    DICOM_INDEX,
    IMAGE_SUFFIXES,
    NO_IMAGE_SUFFIXES,
    UNFINISHED_SUFFIXES,
    Format,
    format_of,
    may_be_read,
)
from featurecache.extract.images.left_out import (
    CLOSED_FILE,
    CLOSED_FOLDER,
    LINK_BACK,
    NO_IMAGE,
    OWN,
    UNFINISHED,
    Reason,
    Tally,
    suffix_of,
)

# Returns the format of each file, None where it is no image, or the error of one that cannot be read.
Judge = Callable[[Sequence[str]], Sequence[Format | OSError | None]]


@dataclass(slots=True, eq=False)
class Folder:
    """A folder: the prefix of its paths, the names that lead to it from the root, and what is in it.

    images: names of files. n_below: images at any depth. n_foreign: files at any depth that are no images, but for
    those of systems.
    """

    prefix: str
    parts: tuple[str, ...]
    is_link: bool = False
    images: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    n_below: int = 0
    n_foreign: int = 0

    @property
    def name(self) -> str:
        """Its own name; empty for the root."""
        return self.parts[-1] if self.parts else ""

    @property
    def path(self) -> str:
        """Its path relative to the root, with slashes."""
        return "/".join(self.parts)

    def with_images(self) -> list[Folder]:
        """Return the folders in it that have images at any depth."""
        return [each for each in self.folders if each.n_below]

    def below(self) -> Iterator[Folder]:
        """Yield it and every folder at any depth."""
        waiting = [self]  # not recursive: folders can be nested deeper than Python's limit of calls
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += reversed(folder.folders)


def read_tree(root: str | os.PathLike[str], tally: Tally, judge: Judge) -> Folder:
    """Return a folder with all that is below it; files that are no images are counted in the tally.

    judge: returns the image format of files whose suffix does not say it, by their first bytes.
    """
    top = Folder(_prefix(Path(root)), ())
    undecided: list[tuple[Folder, str]] = []
    readable = _Readable()
    order: list[tuple[Folder, Folder | None]] = []
    waiting: list[tuple[Folder, Folder | None, frozenset[tuple[int, int] | None]]] = [(top, None, frozenset())]
    while waiting:
        folder, parent, above = waiting.pop()
        identity = _identity(folder)
        if identity in above:
            tally.add(LINK_BACK, folder.path)
            continue
        order.append((folder, parent))
        _list(folder, tally, undecided, readable)
        waiting += [(inner, folder, above | {identity}) for inner in reversed(folder.folders)]
    _decide(undecided, tally, judge)
    for folder, parent in reversed(order):
        folder.n_below += len(folder.images)
        if parent is not None:
            parent.n_below += folder.n_below
            parent.n_foreign += folder.n_foreign
    return top


class _Readable(dict[str, bool]):
    """Whether files of a suffix, as it is written in their names, are read without a look at them."""

    def __missing__(self, suffix: str) -> bool:
        format_ = format_of(suffix.lower())
        readable = format_ is not None and format_.is_readable()
        if readable:
            self[suffix] = readable
        return readable


def _list(folder: Folder, tally: Tally, undecided: list[tuple[Folder, str]], readable: _Readable) -> None:
    """Find the images and folders directly in a folder, each sorted by name."""
    images = folder.images
    others: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder.prefix or ".") as entries:
            for entry in entries:
                name = entry.name
                if readable[name[name.rfind(".") :]] and name[0] != "." and not _is_folder(entry):
                    images.append(name)
                else:
                    others.append(entry)
    except OSError as error:
        tally.add(CLOSED_FOLDER, folder.path or folder.prefix or ".", error.strerror or str(error))
    if folder.parts and is_own({entry.name for entry in others}):
        _leave_out_own(folder, tally)
        return
    for entry in sorted(others, key=lambda each: each.name):
        _sort_in(entry, folder, tally, undecided)
    images.sort()


def _leave_out_own(folder: Folder, tally: Tally) -> None:
    folder.images.clear()
    if not folder.is_link:  # otherwise its files are counted where they are
        count_below(folder.prefix, folder.path, OWN, tally)


def _sort_in(entry: os.DirEntry[str], folder: Folder, tally: Tally, undecided: list[tuple[Folder, str]]) -> None:
    """Find out what an entry is that is not simply an image by its suffix."""
    name = entry.name
    suffix = suffix_of(name)
    if reason := skipped(name):
        if entry.is_dir(follow_symlinks=False):
            count_below(entry.path, "/".join((*folder.parts, name)), reason, tally)
        else:
            tally.add(reason, name)
    elif _is_folder(entry):
        path = os.path.join(folder.prefix, name, "")  # noqa: PTH118 (pathlib drops the last separator)
        folder.folders.append(Folder(path, (*folder.parts, name), entry.is_symlink()))
    elif suffix not in NO_IMAGE_SUFFIXES and _is_file(entry):
        undecided.append((folder, name))
    else:
        tally.add(NO_IMAGE, name)
        folder.n_foreign += 1


def _decide(undecided: Sequence[tuple[Folder, str]], tally: Tally, judge: Judge) -> None:
    """Sort in the files whose suffix does not say whether they are images that can be read."""
    found = judge([folder.prefix + name for folder, name in undecided]) if undecided else []
    for (folder, name), seen in zip(undecided, found, strict=True):
        reason = _why_left_out(name, seen)
        if reason is None:
            folder.images.append(name)
            continue
        folder.n_foreign += 1
        error = seen if isinstance(seen, OSError) and reason is CLOSED_FILE else None
        tally.add(reason, "/".join((*folder.parts, name)), error.strerror or str(error) if error else "")


def _why_left_out(name: str, seen: Format | OSError | None) -> Reason | None:
    """Return why a file is no sample by its name and first bytes; None where it is one."""
    suffix = suffix_of(name)
    named = format_of(suffix)
    if isinstance(seen, Format):
        if suffix in UNFINISHED_SUFFIXES:
            return UNFINISHED
        if seen is DICOM and name.lower().partition(";")[0].rstrip(".") == DICOM_INDEX:
            return NO_IMAGE
        if may_be_read(named, seen):
            return None
    if isinstance(of := named or seen, Format):
        return of.without
    return CLOSED_FILE if isinstance(of, OSError) else NO_IMAGE


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:  # a link into a folder without permission, perhaps to a folder
        return suffix_of(entry.name) not in IMAGE_SUFFIXES
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether it is an ordinary file: reading a pipe would wait."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _identity(folder: Folder) -> tuple[int, int] | None:
    try:
        status = os.stat(folder.prefix or ".")  # noqa: PTH116 (hot loop)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _prefix(folder: Path) -> str:
    """Return the prefix of the paths in a folder: empty for the current one."""
    return "" if folder == Path() else os.path.join(folder, "")  # noqa: PTH118 (pathlib drops the last separator)
