"""The pixels of a chunk of images: an array for every kind of pixels, into which decoders write rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import View
from featurecache.extract.job.plan import Group

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Kind:
    """All that the pixels of an image depend on; groups of one kind have the same. plain: the kind without a view."""

    at_least: int | None
    levels: str
    geometry: TransformSpec
    view: View | None
    plain: Kind | None = None


# The groups that miss an image, with the kinds of their pixels.
Wanted = tuple[tuple[Group, Kind], ...]


def kinds_of(groups: Sequence[Group]) -> list[tuple[Group, Kind]]:
    """Return each group with its kind: one object for groups of one kind, because it is looked up for every image."""
    known: dict[tuple[Any, ...], Kind] = {}

    def kind_of(group: Group, view: View | None, plain: Kind | None) -> Kind:
        parts = group.at_least, group.levels, group.geometry, view
        return known.setdefault(parts, Kind(*parts, plain))

    plain = [kind_of(group, None, None) for group in groups]
    return [
        (group, each if group.view is None else kind_of(group, group.view, each))
        for group, each in zip(groups, plain, strict=True)
    ]


class WantedKinds:
    """The groups that miss an image, and their kinds, which are also all of `kinds`, each once."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._each = kinds_of(groups)
        self.kinds = list(dict.fromkeys(kind for _, kind in self._each))
        self._known: dict[tuple[bool, ...], Wanted] = {}

    def of(self, digest: bytes) -> Wanted:
        """Return the groups that miss an image: one object for all images that the same groups miss."""
        misses = tuple([group.misses(digest) for group, _ in self._each])
        if misses not in self._known:
            some = tuple(each for each, is_missed in zip(self._each, misses, strict=True) if is_missed)
            self._known.setdefault(misses, some)
        return self._known[misses]


class Batch:
    """The pixels of n images for every kind that a group wants: uint8 (n, 3, S, S), into which decoders write rows.

    Row i is image i; that of an image which is refused, or which no such group misses, has no meaning.
    is_pinned: whether they are in page-locked memory, from which a GPU copies by itself: then they are tensors.
    memory: where they are instead, for every kind, with at least as many rows; number: of this memory.
    """

    def __init__(
        self,
        n: int,
        *,
        is_pinned: bool = False,
        memory: Mapping[Kind, NDArray[np.uint8]] | None = None,
        number: int = 0,
    ) -> None:
        self.number, self._n, self._is_pinned = number, n, is_pinned
        # The pixels as they are passed to an engine, and the same memory as arrays.
        self._rows = {kind: rows[:n] for kind, rows in (memory or {}).items()}
        self._pixels: dict[Kind, torch.Tensor | NDArray[np.uint8]] = {**self._rows}
        self._lock = Lock()

    def rows(self, kind: Kind) -> NDArray[np.uint8]:
        """Return the rows of all images (n, 3, S, S), to be written."""
        if kind not in self._rows:
            with self._lock:
                if kind not in self._rows:
                    self._pixels[kind] = self._empty(kind.geometry.crop)
                    self._rows[kind] = np.asarray(self._pixels[kind])
        return self._rows[kind]

    def write(self, kind: Kind, rows: Sequence[int], pixels: NDArray[np.uint8]) -> None:
        """Write the pixels of the images `rows`, ascending: uint8 (len(rows), 3, S, S), or 1 in place of 3 if grey."""
        whole = self.rows(kind)
        if rows[-1] - rows[0] < len(rows):
            whole[rows[0] : rows[-1] + 1] = pixels
            return
        for row, its_pixels in zip(rows, pixels, strict=True):
            whole[row] = its_pixels

    def images(self, kind: Kind, rows: Sequence[int]) -> torch.Tensor | NDArray[np.uint8]:
        """Return the pixels of the images `rows`, in order: uint8 (len(rows), 3, S, S)."""
        whole = self._pixels[kind]
        return whole if len(rows) == self._n else whole[list(rows)]

    def _empty(self, side: int) -> torch.Tensor | NDArray[np.uint8]:
        shape = (self._n, 3, side, side)
        if self._is_pinned:
            import torch

            try:
                return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            except RuntimeError:  # a limit on locked memory (ulimit -l): copies from ordinary memory are slower
                self._is_pinned = False
        return np.empty(shape, dtype=np.uint8)
