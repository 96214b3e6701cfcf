"""Decoding in the threads that ask for it, of files that are read ahead where that is slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from featurecache.extract.images.read_ahead import Part, ReadAhead
from featurecache.extract.job.decoding.batch import Batch
from featurecache.extract.job.decoding.decoder import Decoded, Decoder, Item


class DecodeThreads:
    """Decodes parts of chunks; a context manager, which ends the reading ahead.

    n_readers: threads that read ahead. n_ahead: parts of which they may be ahead. slow_s: see ReadAhead. is_pinned:
    whether the pixels are in page-locked memory.
    """

    def __init__(self, decoder: Decoder, *, n_readers: int, n_ahead: int, slow_s: float, is_pinned: bool) -> None:
        self._decoder, self._is_pinned = decoder, is_pinned
        self._ahead = ReadAhead(n_threads=n_readers, n_ahead=n_ahead, slow_s=slow_s)

    def __enter__(self) -> DecodeThreads:
        return self

    def __exit__(self, *given: object) -> None:
        self._ahead.__exit__(*given)

    def stop(self) -> None:
        """Do nothing: the threads look for it by `check`."""

    @contextmanager
    def batch(self, n: int) -> Iterator[Batch]:
        """Yield a batch of n images."""
        yield Batch(n, is_pinned=self._is_pinned)

    def expect(self, items: Sequence[Item]) -> Part:
        """Return a part that is going to be decoded, after those before it."""
        return self._ahead.expect([sample.path for _, sample in items])

    def decode(
        self, part: Part, items: Sequence[Item], batch: Batch, *, start: int, check: Callable[[], None]
    ) -> list[Decoded]:
        """Decode and transform images into the rows of the batch from `start` on, as `Decoder.decode_part` does."""
        return self._decoder.decode_part(items, self._ahead.take(part), batch, start=start, check=check)
