"""Folders of images as a Manifest: class folders, with or without train, val and test above them."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterator, Sequence
from pathlib import Path

from featurecache.base.errors import ManifestError
from featurecache.base.text import printable
from featurecache.extract.images.formats import IMAGE_SUFFIXES, format_of
from featurecache.extract.images.left_out import (
    CLOSED_FOLDER,
    EMPTY_CLASS,
    LINK_BACK,
    LOOSE,
    NO_IMAGE,
    OWN,
    Tally,
    suffix_of,
)
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.skipped import count_below, is_own, skipped

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def scan_folder(root: str | os.PathLike[str]) -> Manifest:
    """Read a folder of images: class folders, splits over class folders, or flat.

    Raises ManifestError when the folder holds no image, or when splits and other folders are next to each other.
    """
    root = Path(root)
    tree = _Tree(root)
    here, folders = tree.list_folder(root)
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    is_split = bool(folders) and all(splits.values())
    if is_split:
        samples = [s for folder, split in splits.items() for s in tree.labelled(folder, split)]
    elif "train" in splits.values():
        strangers = ", ".join(f"'{printable(folder.name)}'" for folder, split in splits.items() if split is None)
        raise ManifestError(
            f"'{printable(root)}' has a folder 'train' and next to it {strangers}: a folder may be a split or a class, "
            "not both. Name the splits train, val and test and move everything else away, or write a manifest."
        )
    else:
        samples = list(tree.labelled(root, None))
    if here and (is_split or any(sample.label is not None for sample in samples)):
        stray = set(here)
        samples = [sample for sample in samples if sample.path not in stray]
        for path in here:
            tree.tally.add(LOOSE, tree.name(path))
    tree.tally_empty_classes({sample.label for sample in samples})
    return _manifest(root, samples, tree)


def scan_any_layout(root: str | os.PathLike[str], classes: Collection[str] = ()) -> Manifest:
    """Return every image at any depth below a folder, whatever its layout: for images that need no label.

    The label of an image is the topmost folder above it that is one of `classes`, else the topmost that is no split;
    directly in `root` it has none. Raises ManifestError when the folder holds no image.
    """
    root = Path(root)
    tree = _Tree(root)
    labels: dict[str, str | None] = {}
    samples = []
    for path in tree.walk(root, seen=frozenset()):
        name = tree.name(path)
        folder = name.rpartition("/")[0]
        if folder not in labels:
            labels[folder] = _label_of(Path(folder).parts, classes)
        samples.append(Sample(path, name, labels[folder]))
    return _manifest(root, samples, tree)


def _label_of(folders: Sequence[str], classes: Collection[str]) -> str | None:
    """Return the label of the images in a folder; folders: the names that lead to it."""
    known = [folder for folder in folders if printable(folder) in classes]
    named = [folder for folder in folders if folder.lower() not in SPLIT_NAMES]
    return next(iter([*known, *named]), None)


def _manifest(root: Path, samples: list[Sample], tree: _Tree) -> Manifest:
    """Return the samples in order with what was left out. Raises ManifestError where there are none."""
    left_out = tree.tally.left_out()
    if not samples:
        found = f" ({' '.join(left_out.sentences())})" if left_out.counts else ""
        raise ManifestError(
            f"'{printable(root)}' holds no images{found}. "
            "Put one folder per class into it, or images without folders to extract or predict only."
        )
    samples.sort(key=lambda s: os.fsencode(s.name))
    return Manifest(root, tuple(samples), left_out)


class _Tree:
    """A walk over folders that follows links without cycles and counts what it leaves out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tally = Tally()
        self._n_foreign = 0
        self._empty: dict[str, str] = {}
        self._listed: dict[Path, tuple[list[str], list[Path]]] = {}
        self._above = _prefix(root)

    def name(self, path: str | Path) -> str:
        """Return a path relative to the root, with slashes."""
        return str(path).removeprefix(self._above).replace(os.sep, "/")

    def list_folder(self, folder: Path) -> tuple[list[str], list[Path]]:
        """Return the images and the folders directly in `folder`, without hidden ones, each sorted.

        Images are strings: 70,000 Path objects took 25 MB and 0.6 s more.
        """
        if folder in self._listed:
            return self._listed[folder]
        images: list[str] = []
        folders: list[Path] = []
        prefix = _prefix(folder)
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda e: os.fsencode(e.name))
            if folder != self.root and is_own({entry.name for entry in entries}):
                count_below(str(folder), self.name(folder), OWN, self.tally)
                entries = []
            for entry in entries:
                if reason := skipped(entry.name):
                    if entry.is_dir(follow_symlinks=False):
                        count_below(entry.path, self.name(entry.path), reason, self.tally)
                    else:
                        self.tally.add(reason, entry.name)
                elif self._is_folder(entry):
                    folders.append(Path(entry.path))
                elif self._is_image(prefix + entry.name):
                    images.append(prefix + entry.name)
        except OSError as error:
            self.tally.add(CLOSED_FOLDER, self.name(folder), error.strerror or str(error))
        self._listed[folder] = (images, folders)
        return images, folders

    def _is_image(self, path: str) -> bool:
        """Return whether a file is a sample, by its suffix; count it where it is not."""
        suffix = suffix_of(path)
        if suffix in IMAGE_SUFFIXES:
            return True
        kind = format_of(suffix)
        if kind is not None and kind.is_readable():
            return True
        self.tally.add(kind.without if kind else NO_IMAGE, self.name(path))
        self._n_foreign += 1
        return False

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except PermissionError:  # a link into a folder without permission, perhaps to a folder
            return os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES  # noqa: PTH122
        except OSError:  # a link to itself
            return False

    def labelled(self, parent: Path, split: str | None) -> Iterator[Sample]:
        """Yield the samples below `parent`: its folders are the classes, images directly in it have no label."""
        images, folders = self.list_folder(parent)
        for path in images:
            yield Sample(path, self.name(path), None, split)
        for folder in folders:
            n_foreign, n = self._n_foreign, 0
            for path in self.walk(folder, seen=frozenset({_identity(self.root), _identity(parent)})):
                n += 1
                yield Sample(path, self.name(path), folder.name, split)
            if not n and self._n_foreign > n_foreign:
                self._empty.setdefault(folder.name, self.name(folder))

    def tally_empty_classes(self, classes: Container[str | None]) -> None:
        """Count the class folders that have files and no image in any split."""
        for label, name in self._empty.items():
            if label not in classes:
                self.tally.add(EMPTY_CLASS, name)

    def walk(self, folder: Path, *, seen: frozenset[tuple[int, int] | None]) -> Iterator[str]:
        """Yield every image at any depth below `folder`; a link to a folder above it is not followed."""
        waiting = [(folder, seen)]  # not recursive: folders can be nested deeper than Python's limit of calls
        while waiting:
            folder, above = waiting.pop()
            identity = _identity(folder)
            if identity in above:
                self.tally.add(LINK_BACK, self.name(folder))
                continue
            images, folders = self.list_folder(folder)
            yield from images
            waiting += [(inner, above | {identity}) for inner in reversed(folders)]


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _prefix(folder: Path) -> str:
    """Return the prefix of the paths in a folder: empty for the current one."""
    return "" if folder == Path() else os.path.join(folder, "")  # noqa: PTH118 (pathlib drops the last separator)
