"""Vectors of many images, in order: chunks of files are decoded in threads and passed through the engine.

    on a CPU    lane 1:  read, decode, fit, network | read, decode, fit, network | ...       chunk 1, 3, ...
                lane 2:  read, decode, fit, network | read, decode, fit, network | ...       chunk 2, 4, ...
    on a GPU    decoders, one a core, ahead of everything  ->  lanes: copy, network

On a CPU nothing is gained by decoding ahead: it takes the same cores. A lane does both for a chunk of its own, so there
is nothing to budget between decoding and network, no thread more than cores, and no core waits for another. An engine
with fewer lanes than cores has all of them decode a chunk first, and then all of them run it.

A core that runs a lane runs one thread: torch, whose operators may start a team of threads in every lane, is held to
the lane's share of the cores. On two idle cores that costs and brings nothing (mobilenet_v3_large: 271 images/s with
it, 272 without); it is for machines where threads beyond the cores are not to be had.

Memory is bounded by the chunks under way, not by the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from featurecache.base.cores import count_cores
from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import apply_view
from featurecache.extract.images.decode import decode_image
from featurecache.extract.images.loader import load_ahead
from featurecache.extract.images.manifest import Sample
from featurecache.extract.job.plan import Group

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Each = TypeVar("Each")
Item = tuple[bytes, Sample]

# Decoding for a GPU: beyond this many threads the interpreter's lock, not the cores, is what they wait for.
MAX_DECODERS = 16


@dataclass(frozen=True)
class Decoded:
    """One image: pixels for each group that needs them, or the reason why there are none.

    is_lasting: whether it is refused for its bytes, and not for the state of the disk.
    """

    digest: bytes
    name: str
    images: list[tuple[Group, torch.Tensor]]
    refusal: str | None
    is_lasting: bool
    read_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class GroupVectors:
    """One forward pass: digest and name of n images, their vectors (n, D) side by side, and the seconds it took."""

    group: Group
    keys: list[tuple[bytes, str]]
    vectors: NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class Computed:
    """One chunk: its images without their pixels, and the vectors of each group that misses any of them."""

    decoded: list[Decoded]
    vectors: list[GroupVectors] = field(default_factory=list)


def compute_vectors(
    items: Sequence[Item], groups: Sequence[Group], *, max_pixels: int
) -> Generator[Computed, None, None]:
    """Every image through every group that misses it, in order; groups are started.

    Raises EngineError or OutOfMemory; a refused image is in the result. Closing the generator stops the work.
    """
    engines = [group.started for group in groups]
    size = max(engine.batch_size for engine in engines)
    n_lanes = max(engine.n_lanes for engine in engines)
    n_cores = count_cores()

    def decode(item: Item) -> Decoded:
        return decode_item(item, groups, max_pixels)

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
    """Let operators of torch have so many threads in this thread and in new ones, and as many as before after."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_threads(n_threads: int) -> None:
    """Let operators of torch have so many threads inside when they are called from this thread."""
    import torch

    torch.get_num_threads()  # asked for the first time in a thread, it takes over what any thread set last
    torch.set_num_threads(n_threads)


def decode_item(item: Item, groups: Sequence[Group], max_pixels: int) -> Decoded:
    """Read, decode and fit one image; what is wrong with it is in the result."""
    digest, sample = item
    started = time.perf_counter()
    read, images, refusal, is_lasting = started, [], None, False
    try:
        data = Path(sample.path).read_bytes()
        read = time.perf_counter()
        if image_digest(data) != digest:
            raise ImageRefused("it changed while the run was going on; run extract again")
        is_lasting = True
        images = _fit(digest, data, groups, max_pixels)
    except OSError as error:
        refusal = f"cannot be read: {error.strerror or error}"
    except ImageRefused as error:
        refusal = str(error)
    except MemoryError:
        refusal = "it needs more memory than there is"
    return Decoded(digest, sample.name, images, refusal, is_lasting, read - started, time.perf_counter() - read)


def _fit(digest: bytes, data: bytes, groups: Sequence[Group], max_pixels: int) -> list[tuple[Group, torch.Tensor]]:
    """The pixels for each group that misses this image; decoded once, and fitted once, for all that want the same."""
    from featurecache.extract.images.transform import apply_transform

    pixels: dict[int | None, torch.Tensor] = {}
    fitted: dict[tuple[int | None, TransformSpec], torch.Tensor] = {}
    images = []
    for group in groups:
        if not group.misses(digest):
            continue
        wanted = group.at_least, group.geometry
        if group.at_least not in pixels:
            pixels[group.at_least] = decode_image(data, max_pixels=max_pixels, at_least=group.at_least)
        if wanted not in fitted:
            fitted[wanted] = apply_transform(pixels[group.at_least], group.transform)
        view = group.view
        images.append((group, fitted[wanted] if view is None else apply_view(fitted[wanted], view, digest)))
    return images


def forward(decoded: list[Decoded]) -> Computed:
    """Run the pixels of a chunk through their networks, and let go of them."""
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
    """The items that the same groups miss one after the other, so that every batch is full for every group."""
    if len(groups) == 1:
        return items
    return sorted(items, key=lambda item: [group.misses(item[0]) for group in groups])


def _chunks(items: Iterable[Each], size: int) -> Iterator[list[Each]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
