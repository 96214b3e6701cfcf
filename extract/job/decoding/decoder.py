"""Decoding of the images of a batch: each is read, decoded and written as one row for the groups that miss it.

Small plain JPEGs of one size are decoded into one array and resized together, so that they share what Python costs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from featurecache.base.errors import CacheError, ImageRefused
from featurecache.extract.cache.memo import FileState
from featurecache.extract.images.augmentation import viewed
from featurecache.extract.images.decode import NO_MEMORY, decode_picture, refusal_of
from featurecache.extract.images.decoding.jpeg import decode_stack
from featurecache.extract.images.decoding.levels import Span
from featurecache.extract.images.decoding.memory import DECODING, MOST_PIXELS_AT_ONCE, SMALL_SHARE
from featurecache.extract.images.decoding.orientation import UPRIGHT
from featurecache.extract.images.decoding.picture import Picture
from featurecache.extract.images.decoding.plain_jpeg import Header, RecentHeaders
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.read_ahead import LEFT, ReadFile
from featurecache.extract.images.sources import HashedFile, open_hashed, read_hashed
from featurecache.extract.job.claims import Claims
from featurecache.extract.job.decoding.batch import Batch, Kind, Wanted, WantedKinds
from featurecache.extract.job.outdated import CHANGED
from featurecache.extract.job.plan import Group, Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Pixels of the images that are resized together, and of one of them: so few are not counted (memory.py).
STACK_PIXELS, SMALL_PIXELS = 1 << 20, MOST_PIXELS_AT_ONCE // SMALL_SHARE

# The digest of a file, if it is known, and the sample.
Item = tuple[bytes | None, Sample]


@dataclass(slots=True)
class Decoded:
    """One decoded image: the groups for which its pixels are in the batch, or the reason of its refusal.

    is_lasting: whether it is refused for its content, and not for a failure to read it. spans: the values of an image
    of more than 8 bits, for each range that it was read with. file: path, state and time of the reading if the digest
    is another than the known one. is_skipped: whether the content needs no computing, or another file has it.
    """

    digest: bytes
    name: str
    images: Wanted = ()
    refusal: str | None = None
    is_lasting: bool = False
    spans: dict[str, Span] = field(default_factory=dict)
    file: tuple[str, FileState | None, int] | None = None
    is_skipped: bool = False
    read_seconds: float = 0.0
    decode_seconds: float = 0.0


class Taken(NamedTuple):
    """An image of a part whose content is to be decoded: its row, what is known of it, and its bytes."""

    row: int
    decoded: Decoded
    content: bytes


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
        self._wanted = WantedKinds(groups)
        self._headers = RecentHeaders()
        self._is_plain = all(kind.at_least is None and kind.view is None for kind in self._wanted.kinds)
        self._is_together: dict[Header, bool] = {}

    @property
    def kinds(self) -> list[Kind]:
        """All kinds of pixels of the groups, each once."""
        return self._wanted.kinds

    def decode_part(
        self,
        items: Sequence[Item],
        files: Sequence[ReadFile],
        batch: Batch,
        *,
        start: int = 0,
        check: Callable[[], None] | None = None,
    ) -> list[Decoded]:
        """Decode and transform images into the rows of the batch from `start` on, as `decode` does.

        check: called from time to time; what it raises ends the decoding.
        """
        taken: dict[int, Decoded] = {}
        together: dict[Header, list[Taken]] = {}
        if self._is_plain and "torch" in sys.modules:
            self._take_alike(items, files, start, taken, together)
        done: set[int] = set()
        for header, images in together.items():
            step = max(1, STACK_PIXELS // self._most_pixels(header))
            for at in range(0, len(images), step):
                done.update(self._decode_together(header, images[at : at + step], batch))
        decoded = []
        for row, (item, read) in enumerate(zip(items, files, strict=True), start):
            if row in done:
                decoded.append(taken[row])
                continue
            if check is not None:
                check()
            decoded.append(self.decode(item, batch, row, read, taken.get(row)))
        return decoded

    def decode(
        self, item: Item, batch: Batch, row: int = 0, read: ReadFile = LEFT, taken: Decoded | None = None
    ) -> Decoded:
        """Decode and transform one image into a row of the batch.

        read: its file, if that was read ahead. taken: what is known of it, if its content was claimed already.
        The reason of a refusal is in the result, whatever went wrong.
        """
        known, sample = item
        started = time.perf_counter()
        decoded = taken or Decoded(known or b"", sample.name)
        if known is None and taken is None:
            decoded.file = sample.path, None, 0
        try:
            if read.error is not None:
                raise read.error
            found = read.file or read_hashed(sample.path)
            with open_hashed(sample.path) if found is None else nullcontext(found) as file:
                decoded.read_seconds = time.perf_counter() - started
                if taken is None:
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
            decoded.images = ()
            decoded.is_lasting &= decoded.refusal != NO_MEMORY
        decoded.decode_seconds = time.perf_counter() - started - decoded.read_seconds
        decoded.read_seconds += read.seconds
        return decoded

    def _take(
        self, decoded: Decoded, known: bytes | None, path: str, file: HashedFile, lacking: Sequence[Plan] = ()
    ) -> None:
        """Claim the content of a file whose digest is not the known one. Raises ImageRefused."""
        if file.digest == known:
            return
        if self.claims is None:
            raise ImageRefused(CHANGED)
        decoded.digest, decoded.file = file.digest, (path, file.state, file.read_ns)
        decoded.is_skipped = not self.claims.take(file.digest, path, lacking)

    def _take_alike(
        self,
        items: Sequence[Item],
        files: Sequence[ReadFile],
        start: int,
        taken: dict[int, Decoded],
        together: dict[Header, list[Taken]],
    ) -> None:
        """Claim the small plain JPEGs among the files: into `taken`, and those to be decoded into `together`."""
        lacking = self._lacking([(known, read.file) for (known, _), read in zip(items, files, strict=True)])
        for row, ((known, sample), (file, _, seconds)) in enumerate(zip(items, files, strict=True), start):
            if file is None or not isinstance(file.content, bytes):
                continue
            header = self._headers.of(file.content)
            if header is None or not self._can_share(header):
                continue
            decoded = Decoded(file.digest, sample.name, read_seconds=seconds)
            if file.digest != known:
                try:
                    self._take(decoded, known, sample.path, file, lacking.get(file.digest, ()))
                except Exception:  # noqa: BLE001  (`decode` meets it again, and refuses this image)
                    continue
            taken[row] = decoded
            if not decoded.is_skipped:
                together.setdefault(header, []).append(Taken(row, decoded, file.content))

    def _lacking(self, files: Sequence[tuple[bytes | None, HashedFile | None]]) -> dict[bytes, list[Plan]]:
        """Return which plans lack the contents of files that have another digest than the known one."""
        digests = [file.digest for known, file in files if file is not None and file.digest != known]
        if self.claims is None or not digests:
            return {}
        try:
            return dict(zip(digests, self.claims.lacking(digests), strict=True))
        except CacheError:  # each image meets it again
            return {}

    def _can_share(self, header: Header) -> bool:
        """Whether images with this header are decoded and resized together."""
        if header not in self._is_together:
            from featurecache.extract.images.transform import is_fit_together

            size = header.height, header.width
            is_small = header.height * header.width <= min(SMALL_PIXELS, self.max_pixels)
            is_small = is_small and all(is_fit_together(size, kind.geometry) for kind in self._wanted.kinds)
            self._is_together[header] = is_small and header.orientation == UPRIGHT
        return self._is_together[header]

    def _most_pixels(self, header: Header) -> int:
        """Return the pixels of an image with this header, or of what its shortest side is resized to."""
        return max(header.height * header.width, *(kind.geometry.resize**2 for kind in self._wanted.kinds))

    def _decode_together(self, header: Header, images: Sequence[Taken], batch: Batch) -> list[int]:
        """Decode images with one header into their rows, and return the rows of those for which that was possible."""
        from featurecache.extract.images.transform import fit_together

        started = time.perf_counter()
        with nullcontext(_not_noted) if self.claims is None else self.claims.noting() as note:
            files = [each.content for each in images]
            size = header.height, header.width
            stack, whole = decode_stack(
                files, size, is_grey=header.is_grey, begin=lambda i: note(images[i].decoded.digest)
            )
        places: dict[Kind, list[int]] = {}
        for i in whole:
            decoded = images[i].decoded
            decoded.images = self._wanted.of(decoded.digest)
            for kind in dict.fromkeys(kind for _, kind in decoded.images):
                places.setdefault(kind, []).append(i)
        try:
            for kind, some in places.items():
                part = stack if len(some) == len(stack) else stack[some]
                batch.write(kind, [images[i].row for i in some], fit_together(part, kind.geometry))
        except Exception:  # noqa: BLE001  (such as too little memory: `decode` meets it again, one by one)
            return []
        seconds = (time.perf_counter() - started) / max(1, len(whole))
        for i in whole:
            images[i].decoded.decode_seconds = seconds
        return [images[i].row for i in whole]

    def _decode(self, decoded: Decoded, file: HashedFile, batch: Batch, row: int) -> None:
        decoded.is_lasting = True
        with DECODING.reservation() as reserved:
            with nullcontext(_not_noted) if self.claims is None else self.claims.noting() as note:
                note(file.digest)
                self._fit(decoded, file.content, Limits(self.max_pixels, reserved.reserve), batch, row)
            if not file.is_as_hashed():
                decoded.is_lasting = False
                raise ImageRefused(CHANGED)

    def _fit(self, decoded: Decoded, file: bytes | BinaryIO, limits: Limits, batch: Batch, row: int) -> None:
        """Write the pixels for each group that misses this image; groups share decoding and transform if they can."""
        from featurecache.extract.images.transform import fit_pixels

        pictures: dict[tuple[int | None, str], Picture] = {}
        fitted: dict[Kind, NDArray[np.uint8]] = {}
        wanted = self._wanted.of(decoded.digest)
        for kind in dict.fromkeys(kind for _, kind in wanted):
            how = kind.at_least, kind.levels
            if how not in pictures:
                pictures[how] = decode_picture(
                    file, max_pixels=limits.max_pixels, at_least=how[0], levels=how[1], reserve=limits.reserve
                )
            into, plain = batch.rows(kind)[row], kind.plain or kind
            if plain not in fitted:
                fitted[plain] = fit_pixels(pictures[how], kind.geometry, into if plain is kind else None)
            whole = fitted[plain]
            if kind.view is not None:
                into[:] = viewed(whole, kind.view, decoded.digest)
            elif whole is not into:
                into[:] = whole
            if (span := pictures[how].span) is not None:
                decoded.spans[kind.levels] = span
        decoded.images = wanted


def _not_noted(digest: bytes) -> None:
    pass
