"""Decoding of the images of a batch: each is read, decoded and written as one row for the groups that miss it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.memo import FileState
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import View, viewed
from featurecache.extract.images.decode import NO_MEMORY, decode_picture, refusal_of
from featurecache.extract.images.decoding.levels import Span
from featurecache.extract.images.decoding.memory import DECODING
from featurecache.extract.images.decoding.picture import Picture
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.read_ahead import LEFT, ReadFile
from featurecache.extract.images.sources import HashedFile, open_hashed, read_hashed
from featurecache.extract.job.claims import Claims
from featurecache.extract.job.outdated import CHANGED
from featurecache.extract.job.plan import Group

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

# The digest of a file, if it is known, and the sample.
Item = tuple[bytes | None, Sample]


@dataclass(frozen=True, eq=False)
class Kind:
    """All that the pixels of an image depend on; groups of one kind have the same. plain: the kind without a view."""

    at_least: int | None
    levels: str
    geometry: TransformSpec
    view: View | None
    plain: Kind | None = None


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


@dataclass
class Decoded:
    """One decoded image: the groups for which its pixels are in the batch, or the reason of its refusal.

    is_lasting: whether it is refused for its content, and not for a failure to read it. spans: the values of an image
    of more than 8 bits, for each range that it was read with. file: path, state and time of the reading if the digest
    is another than the known one. is_skipped: whether the content needs no computing, or another file has it.
    """

    digest: bytes
    name: str
    images: list[tuple[Group, Kind]] = field(default_factory=list)
    refusal: str | None = None
    is_lasting: bool = False
    spans: dict[str, Span] = field(default_factory=dict)
    file: tuple[str, FileState | None, int] | None = None
    is_skipped: bool = False
    read_seconds: float = 0.0
    decode_seconds: float = 0.0


class Batch:
    """The pixels of n images for every kind that a group wants: uint8 (n, 3, S, S), into which decoders write rows.

    Row i is image i; that of an image which is refused, or which no such group misses, has no meaning.
    is_pinned: whether they are in page-locked memory, from which a GPU copies by itself: then they are tensors.
    """

    def __init__(self, n: int, *, is_pinned: bool = False) -> None:
        self._n, self._is_pinned = n, is_pinned
        self._pixels: dict[Kind, torch.Tensor | NDArray[np.uint8]] = {}
        self._lock = Lock()

    def row(self, kind: Kind, i: int) -> NDArray[np.uint8]:
        """Return the row (3, S, S) of image i, to be written."""
        if kind not in self._pixels:
            with self._lock:
                if kind not in self._pixels:
                    self._pixels[kind] = self._empty(kind.geometry.crop)
        return np.asarray(self._pixels[kind][i])

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


@dataclass(frozen=True)
class Limits:
    """The largest image, and what is called with the number of pixels before they are decoded."""

    max_pixels: int
    reserve: Callable[[int], None]


class Decoder:
    """Decodes images for the groups that miss them; for threads.

    max_pixels: of the largest image. claims: on the contents of files whose digest is not known, or is another than the
    known one; without them such files are refused.
    """

    def __init__(self, groups: Sequence[Group], max_pixels: int, claims: Claims | None = None) -> None:
        self.max_pixels, self.claims = max_pixels, claims
        self._kinds = kinds_of(groups)

    def decode(self, item: Item, batch: Batch, row: int = 0, read: ReadFile = LEFT) -> Decoded:
        """Decode and transform one image into a row of the batch; read: its file, if that was read ahead.

        The reason of a refusal is in the result, whatever went wrong.
        """
        known, sample = item
        started = time.perf_counter()
        decoded = Decoded(known or b"", sample.name)
        if known is None:
            decoded.file = sample.path, None, 0
        try:
            if read.error is not None:
                raise read.error
            found = read.file or read_hashed(sample.path)
            with open_hashed(sample.path) if found is None else nullcontext(found) as file:
                decoded.read_seconds = time.perf_counter() - started
                self._take(decoded, known, sample.path, file)
                if not decoded.is_skipped:
                    self._decode(decoded, file, batch, row)
        except OSError as error:
            decoded.is_lasting = False
            decoded.refusal = f"cannot be read: {error.strerror or error}"
        except ImageRefused as error:
            decoded.refusal = str(error)
        except Exception as error:  # noqa: BLE001  (one image never ends a run)
            decoded.refusal = refusal_of(error)
        if decoded.refusal is not None:
            decoded.images.clear()
            decoded.is_lasting &= decoded.refusal != NO_MEMORY
        decoded.decode_seconds = time.perf_counter() - started - decoded.read_seconds
        decoded.read_seconds += read.seconds
        return decoded

    def _take(self, decoded: Decoded, known: bytes | None, path: str, file: HashedFile) -> None:
        """Claim the content of a file whose digest is not the known one. Raises ImageRefused."""
        if file.digest == known:
            return
        if self.claims is None:
            raise ImageRefused(CHANGED)
        decoded.digest, decoded.file = file.digest, (path, file.state, file.read_ns)
        decoded.is_skipped = not self.claims.take(file.digest, path)

    def _decode(self, decoded: Decoded, file: HashedFile, batch: Batch, row: int) -> None:
        decoded.is_lasting = True
        with DECODING.reservation() as reserved:
            with nullcontext() if self.claims is None else self.claims.decoding(file.digest):
                self._fit(decoded, file.content, Limits(self.max_pixels, reserved.reserve), batch, row)
            if not file.is_as_hashed():
                decoded.is_lasting = False
                raise ImageRefused(CHANGED)

    def _fit(self, decoded: Decoded, file: bytes | BinaryIO, limits: Limits, batch: Batch, row: int) -> None:
        """Write the pixels for each group that misses this image; groups share decoding and transform if they can."""
        from featurecache.extract.images.transform import fit_pixels

        pictures: dict[tuple[int | None, str], Picture] = {}
        fitted: dict[Kind, NDArray[np.uint8]] = {}
        written: set[Kind] = set()
        for group, kind in self._kinds:
            if not group.misses(decoded.digest):
                continue
            how = kind.at_least, kind.levels
            if how not in pictures:
                pictures[how] = decode_picture(
                    file, max_pixels=limits.max_pixels, at_least=how[0], levels=how[1], reserve=limits.reserve
                )
            if kind not in written:
                into, plain = batch.row(kind, row), kind.plain or kind
                if plain not in fitted:
                    fitted[plain] = fit_pixels(pictures[how], group.transform, into if plain is kind else None)
                whole = fitted[plain]
                if kind.view is not None:
                    into[:] = viewed(whole, kind.view, decoded.digest)
                elif whole is not into:
                    into[:] = whole
                written.add(kind)
            decoded.images.append((group, kind))
            if (span := pictures[how].span) is not None:
                decoded.spans[kind.levels] = span
