"""Computation of vectors: chunks of image files are decoded in threads and passed through the engines, in order.

    on a CPU    lane 1:  read, decode, transform, network | read, decode, transform, network | ...     chunk 1, 3, ...
                lane 2:  read, decode, transform, network | read, decode, transform, network | ...     chunk 2, 4, ...
    on a GPU    decoders, one a core, prefetching  ->  lanes: copy, network

On a CPU prefetching gains nothing, because decoding needs the same cores. A lane decodes a chunk and runs the network
on it, so that there are no more threads than cores, and no core waits for another. With an engine of fewer lanes than
cores, all cores decode a chunk first, and then all run it.

Every lane runs as many threads as its share of the cores: torch, whose operators may start several threads in every
lane, is limited to it. On two idle cores that makes no difference (mobilenet_v3_large: 271 images/s with it, 272
without); it is meant for machines that limit the number of threads.

Memory is bounded by the chunks in progress, not by the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from featurecache.base.cores import count_cores
from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.memo import FileState
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import apply_view
from featurecache.extract.images.decode import NO_MEMORY, decode_picture, refusal_of
from featurecache.extract.images.decoding.levels import Span
from featurecache.extract.images.decoding.memory import DECODING
from featurecache.extract.images.decoding.picture import Picture
from featurecache.extract.images.loader import load_ahead
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.sources import open_hashed
from featurecache.extract.job.claims import Claims
from featurecache.extract.job.outdated import CHANGED
from featurecache.extract.job.plan import Group

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Each = TypeVar("Each")
# The digest of a file, if it is known, and the sample.
Item = tuple[bytes | None, Sample]

# Decoding for a GPU: more threads would wait for the interpreter lock.
MAX_DECODERS = 16


@dataclass
class Decoded:
    """One decoded image: uint8 pixels (3, S, S) for each group that needs them, or the reason of its refusal.

    is_lasting: whether it is refused for its content, and not for a failure to read it. spans: the values of an image
    of more than 8 bits, for each range that it was read with. file: path, state and time of the reading if the digest
    is another than the known one. is_skipped: whether the content needs no computing, or another file has it.
    """

    digest: bytes
    name: str
    images: list[tuple[Group, torch.Tensor]] = field(default_factory=list)
    refusal: str | None = None
    is_lasting: bool = False
    spans: dict[str, Span] = field(default_factory=dict)
    file: tuple[str, FileState | None, int] | None = None
    is_skipped: bool = False
    read_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """The largest image, and what is called with the number of pixels before they are decoded."""

    max_pixels: int
    reserve: Callable[[int], None]


@dataclass(frozen=True)
class GroupVectors:
    """The result of one forward pass: digest and name of n images, all columns (n, D), and the seconds it took."""

    group: Group
    keys: list[tuple[bytes, str]]
    vectors: NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class Computed:
    """One computed chunk: its images, without pixels, and the vectors for each group that misses any of them."""

    decoded: list[Decoded]
    vectors: list[GroupVectors] = field(default_factory=list)


def compute_vectors(
    items: Sequence[Item], groups: Sequence[Group], *, max_pixels: int, claims: Claims | None = None
) -> Generator[Computed, None, None]:
    """Yield the vectors of all images for all groups that miss them, in chunks; the groups have to be started.

    claims: on the contents of files whose digest is not known, or is another than the known one; without them such
    files are refused.
    Refused images are part of the result. Raises EngineError or OutOfMemory. Closing the generator stops the threads.
    """
    engines = [group.started for group in groups]
    size = max(engine.batch_size for engine in engines)
    n_lanes = max(engine.n_lanes for engine in engines)
    n_cores = count_cores()

    def decode(item: Item) -> Decoded:
        return decode_item(item, groups, max_pixels, claims)

    if engines[0].device == "cpu":
        n_decoders = 1 if n_lanes > 1 else n_cores
        return _in_lanes(_by_missing_groups(items, groups), decode, size=size, n_lanes=n_lanes, n_decoders=n_decoders)
    return _behind_decoders(items, decode, size=size, n_lanes=n_lanes, n_decoders=min(MAX_DECODERS, n_cores))


def _in_lanes(
    items: Iterable[Item], decode: Callable[[Item], Decoded], *, size: int, n_lanes: int, n_decoders: int
) -> Generator[Computed, None, None]:
    share = max(1, count_cores() // n_lanes)
    with torch_threads(share), ThreadPoolExecutor(n_decoders, "decode", use_threads, (1,)) as pool:

        def work(chunk: list[Item]) -> Computed:
            return forward(list(map(decode, chunk) if n_decoders == 1 else pool.map(decode, chunk)))

        yield from load_ahead(
            _chunks(items, size), work, n_threads=n_lanes, n_ahead=2 * n_lanes, begin=partial(use_threads, share)
        )


def _behind_decoders(
    items: Iterable[Item], decode: Callable[[Item], Decoded], *, size: int, n_lanes: int, n_decoders: int
) -> Generator[Computed, None, None]:
    decoded = load_ahead(items, decode, n_threads=n_decoders, n_ahead=2 * size)
    with torch_threads(1), closing(decoded):
        yield from load_ahead(_chunks(decoded, size), forward, n_threads=n_lanes, n_ahead=n_lanes)


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Limit the threads of torch's operators, in this thread and in new ones, while the context is active."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_threads(n_threads: int) -> None:
    """Limit the threads of torch's operators that are called from this thread."""
    import torch

    torch.get_num_threads()  # its first call in a thread adopts the number that any thread has set last
    torch.set_num_threads(n_threads)


def decode_item(item: Item, groups: Sequence[Group], max_pixels: int, claims: Claims | None = None) -> Decoded:
    """Read, decode and transform one image; the reason of a refusal is in the result, whatever went wrong."""
    known, sample = item
    started = time.perf_counter()
    decoded = Decoded(known or b"", sample.name)
    if known is None:
        decoded.file = sample.path, None, 0
    try:
        with open_hashed(sample.path) as file, DECODING.reservation() as reserved:
            decoded.read_seconds = time.perf_counter() - started
            if file.digest != known:
                if claims is None:
                    raise ImageRefused(CHANGED)
                decoded.digest, decoded.file = file.digest, (sample.path, file.state, file.read_ns)
                decoded.is_skipped = not claims.take(file.digest, sample.path)
            if not decoded.is_skipped:
                decoded.is_lasting = True
                with nullcontext() if claims is None else claims.decoding(file.digest):
                    _fit(decoded, file.content, groups, Limits(max_pixels, reserved.reserve))
                if not file.is_as_hashed():
                    decoded.is_lasting = False
                    raise ImageRefused(CHANGED)
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
    return decoded


def _fit(decoded: Decoded, file: bytes | BinaryIO, groups: Sequence[Group], limits: Limits) -> None:
    """Add the pixels for each group that misses this image; groups share decoding and transform where they can."""
    from featurecache.extract.images.transform import apply_transform

    pictures: dict[tuple[int | None, str], Picture] = {}
    fitted: dict[tuple[int | None, str, TransformSpec], torch.Tensor] = {}
    for group in groups:
        if not group.misses(decoded.digest):
            continue
        how = group.at_least, group.levels
        if how not in pictures:
            pictures[how] = decode_picture(
                file, max_pixels=limits.max_pixels, at_least=how[0], levels=how[1], reserve=limits.reserve
            )
        wanted = *how, group.geometry
        if wanted not in fitted:
            fitted[wanted] = apply_transform(pictures[how], group.transform)
        view, pixels = group.view, fitted[wanted]
        decoded.images.append((group, pixels if view is None else apply_view(pixels, view, decoded.digest)))
        if (span := pictures[how].span) is not None:
            decoded.spans[group.levels] = span


def forward(decoded: list[Decoded]) -> Computed:
    """Run the networks on the pixels of a chunk, which are freed."""
    import torch

    images: dict[Group, list[torch.Tensor]] = {}
    keys: dict[Group, list[tuple[bytes, str]]] = {}
    for item in decoded:
        for group, pixels in item.images:
            images.setdefault(group, []).append(pixels)
            keys.setdefault(group, []).append((item.digest, item.name))
        item.images.clear()
    computed = Computed(decoded)
    for group in keys:
        started = time.perf_counter()
        vectors = group.started.run(torch.stack(images.pop(group)))
        computed.vectors.append(GroupVectors(group, keys[group], vectors, time.perf_counter() - started))
    return computed


def _by_missing_groups(items: Sequence[Item], groups: Sequence[Group]) -> Sequence[Item]:
    """Return the items sorted by the groups that miss them, so that the batches of every group are full."""
    if len(groups) == 1:
        return items
    return sorted(items, key=lambda item: [item[0] is None or group.misses(item[0]) for group in groups])


def _chunks(items: Iterable[Each], size: int) -> Iterator[list[Each]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
