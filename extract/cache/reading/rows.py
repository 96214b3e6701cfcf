"""What a program reads of a cache: all rows in blocks, or as a data set of PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import CacheError, RequestError
from featurecache.base.text import count, printable
from featurecache.base.values import not_whole, refuse
from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.cache.index import ServedRows
    from featurecache.extract.cache.reading.dataset import FeatureDataset

# Of 2,048 numbers each: 64 MB.
BLOCK_ROWS = 8192
# Types of labels that numpy keeps as they are where all are of one; a list of others would become one of texts.
PLAIN = {bool, int, float, str}


class ReadableRows(ABC):
    """The rows of a cache, as programs read them. spec, folder: of the cache."""

    spec: FeatureSpec
    folder: Path

    @abstractmethod
    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]: ...  # noqa: D102

    @abstractmethod
    def lookup(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]: ...  # noqa: D102

    @abstractmethod
    def served(self) -> list[ServedRows]: ...  # noqa: D102

    def digests(self) -> NDArray[np.uint8]:
        """Return the SHA-256 of every image that has a row: (N, 32), in the order of the rows on the disk."""
        return np.concatenate([np.empty((0, 32), np.uint8), *(each.digests for each in self.served())])

    def blocks(self, n_rows: int = BLOCK_ROWS) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        """Return an iterator of all rows, in the order on the disk: float32 (n, D) and digests (n, 32).

        n_rows: of each block but the last, which bounds the memory. Raises RequestError for less than 1, CacheError or
        CacheDamaged while it is read.
        """
        refuse(RequestError, not_whole("number of rows", n_rows, 1))
        digests = self.digests()
        parts = (digests[start : start + n_rows] for start in range(0, len(digests), n_rows))
        return ((self.lookup(part), part) for part in parts)

    def as_dataset(
        self, digests: NDArray[np.uint8] | None = None, y: Iterable[Any] | NDArray[Any] | None = None
    ) -> FeatureDataset:
        """Return rows as a map-style data set of PyTorch, for `torch.utils.data.DataLoader` with any workers.

        digests: of N images (N, 32), such as those of an `ExtractReport`; all rows unless given. y: their labels, an
        array (N,) or (N, ...), or a list of N values of any kind.
        Item i is a pair of the vector, a float32 tensor (D,), and y[i], or without y the digest in hex.
        Raises RequestError where the lengths differ, CacheError where an image has no row.
        """
        from featurecache.extract.cache.reading.dataset import FeatureDataset

        wanted = self.digests() if digests is None else _digests(digests)
        labels = None if y is None else _labels(y)
        if labels is not None and len(labels) != len(wanted):
            given = f"{count(len(labels), 'label')} for {count(len(wanted), 'digest')}"
            raise RequestError(f"There are {given}: give one each.")
        if n_missing := int(self.missing(wanted).sum()):
            raise CacheError(
                f"{n_missing} of {len(wanted)} images have no features in '{printable(self.folder)}'. "
                "Extract them first."
            )
        return FeatureDataset(type(self), self.folder.parent, self.spec, wanted, labels)


def _digests(given: Any) -> NDArray[np.uint8]:
    """Return digests (N, 32). Raises RequestError for what are none."""
    if not hasattr(given, "__array__"):
        raise RequestError(f"The digests are a {type(given).__name__} and have to be an array, uint8 (N, 32).")
    digests = np.asarray(given)
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != 32:
        raise RequestError(f"The digests are {digests.dtype} {digests.shape} and have to be uint8 (N, 32).")
    return np.ascontiguousarray(digests)


def _labels(y: Any) -> NDArray[Any]:
    """Return N labels as an array, values of one plain type as numpy has them and all others as they are.

    Raises RequestError for what has no N values in an order.
    """
    if isinstance(y, str | bytes | Mapping | Set) or not isinstance(y, Iterable) or getattr(y, "ndim", 1) == 0:
        raise RequestError(f"The labels are a {type(y).__name__} and have to be a list or an array, one for each row.")
    if hasattr(y, "__array__"):
        return np.asarray(y)
    values = list(y)
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= PLAIN:
        return np.asarray(values)
    labels = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        labels[i] = value
    return labels
