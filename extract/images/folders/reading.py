"""A folder read in a layout: the label, split and group of every image in it."""

from __future__ import annotations

from typing import NamedTuple

from featurecache.base.text import printable
from featurecache.extract.images.folders.layouts import CLASS, GROUP, LEAF, SPLIT
from featurecache.extract.images.folders.split_names import UNLABELLED, is_filler, split_roles, split_word
from featurecache.extract.images.folders.tree import Folder
from featurecache.extract.images.left_out import LOOSE, OUTSIDE_SPLITS, Reason, Tally
from featurecache.extract.images.manifest import Sample


class Meaning(NamedTuple):
    """What the folders above an image say of it; `outside`: the reason for which it is no sample."""

    label: str | None = None
    split: str | None = None
    group: str | None = None
    outside: Reason | None = None


class Reading:
    """The meaning of the folders below a root in a layout of these levels; remarks: what is not plain in it."""

    def __init__(self, root: Folder, levels: tuple[str, ...]) -> None:
        self.levels = levels
        self.remarks: list[str] = []
        self._split_at = levels.index(SPLIT) if SPLIT in levels else None
        self._class_at = next((place for place, level in enumerate(levels) if level in {CLASS, LEAF}), None)
        self._roles: dict[str, str] = {}
        if self._split_at is not None:
            depth = self._split_at + 1
            names = [each.name for each in root.below() if len(each.parts) == depth and each.n_below]
            self._roles = split_roles(list(dict.fromkeys(names)))
        self._unlabelled = self._find_unlabelled(root)

    def _find_unlabelled(self, root: Folder) -> set[str]:
        """Return names of splits whose only folder is none of a class: the images in `test/unknown` have no label."""
        if self._split_at is None or self._class_at is None or self._class_at < self._split_at:
            return set()
        classes: dict[str, set[str]] = {}
        for folder in root.below():
            if len(folder.parts) == self._class_at + 1 and folder.n_below:
                classes.setdefault(folder.parts[self._split_at], set()).add(folder.name)
        trained = {name for split, names in classes.items() if self._roles.get(split) == "train" for name in names}
        found: set[str] = set()
        for split, names in classes.items():
            (name, *more) = names
            if trained and not more and name not in trained and (is_filler(name) or split_word(name)):
                found.add(split)
                self.remarks.append(f"The images in '{printable(split)}/{printable(name)}' have no label.")
        return found

    def _is_unlabelled(self, split: str) -> bool:
        return split in self._unlabelled or self._roles.get(split) == UNLABELLED

    def is_class(self, folder: Folder) -> bool:
        """Return whether a folder is that of a class."""
        if self._class_at is None or self.meaning(folder).label is None:
            return False
        is_leaf = self.levels[self._class_at] == LEAF
        return not folder.folders if is_leaf else len(folder.parts) == self._class_at + 1

    def meaning(self, folder: Folder) -> Meaning:
        """Return what the images directly in a folder are."""
        label = split = group = None
        outside = None
        for place, level in enumerate(self.levels):
            if place >= len(folder.parts):
                break
            part = folder.parts[place]
            if level == SPLIT:
                role = self._roles.get(part)
                outside = OUTSIDE_SPLITS if role is None else outside
                split = "test" if role == UNLABELLED else role
            elif level == GROUP:
                group = part
            elif level == CLASS:
                label = part
            elif level == LEAF:
                label = "/".join(folder.parts[place:])
        at = self._split_at
        above_split = at is not None and len(folder.parts) <= at
        if at is not None and not above_split and self._is_unlabelled(folder.parts[at]):
            label = None
        elif above_split and (label is not None or folder.with_images()):
            outside = LOOSE if self._class_at is not None and label is None else OUTSIDE_SPLITS
        elif self._class_at is not None and label is None and folder.with_images():
            outside = outside or LOOSE
        return Meaning(label, split, group, outside)

    def samples(self, folder: Folder, tally: Tally) -> list[Sample]:
        """Return the images directly in a folder as samples; those outside the layout are counted."""
        if not folder.images:
            return []
        label, split, group, outside = self.meaning(folder)
        above, prefix = "/".join((*folder.parts, "")), folder.prefix
        if outside is not None:
            for name in folder.images:
                tally.add(outside, above + name)
            return []
        return [Sample(prefix + name, above + name, label, split, group) for name in folder.images]
