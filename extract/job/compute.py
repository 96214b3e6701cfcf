"""Computation of vectors: chunks of image files are read ahead, decoded in threads and passed through the engines.

    readers     read, hash  ->  both
    on a CPU    lane 1:  decode, transform, network | decode, transform, network | ...     chunk 1, 3, ...
                lane 2:  decode, transform, network | decode, transform, network | ...     chunk 2, 4, ...
    on a GPU    decoders, one a core, each with a part of a chunk  ->  lanes: copy, network

On a CPU decoding ahead gains nothing, because it needs the same cores. A lane decodes a chunk and runs the network on
it, so that there are no more threads than cores, and no core waits for another. With an engine of fewer lanes than
cores, all cores decode a chunk first, and then all run it. Reading ahead gains what a slow disk would take.

Every lane runs as many threads as its share of the cores: torch, whose operators may start several threads in every
lane, is limited to it. On two idle cores that makes no difference (mobilenet_v3_large: 271 images/s with it, 272
without); it is meant for machines that limit the number of threads.

Chunks end in any order, so that a slow image does not stop the others, and their results are put back in order. Memory
is bounded by the chunks in progress and by WINDOW, not by the number of images.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, chain
from threading import Event, Semaphore
from typing import TYPE_CHECKING, Any

from featurecache.base.cores import count_cores
from featurecache.extract.images.loader import load_ahead
from featurecache.extract.job.claims import Claims
from featurecache.extract.job.decoding.batch import Batch, Kind
from featurecache.extract.job.decoding.decoder import Decoded, Decoder, Item
from featurecache.extract.job.decoding.threads import DecodeThreads
from featurecache.extract.job.plan import Group

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.extract.engines.protocol import Engine
    from featurecache.extract.job.decoding.processes import DecodeProcesses

# The items of a chunk in parts, each with what is known of it by then.
Chunk = list[tuple[Any, Sequence[Item]]]

# Decoding for a GPU: more threads would wait for the interpreter lock.
MAX_DECODERS = 16
# Up to so many images are resized without torch, unless it is loaded: it would take longer to import.
FEW_IMAGES = 100
# Images that one thread reads or decodes at a time: starting as many tasks costs more than decoding a small image.
PART = 32
# What reading a file may take before files are read ahead, in seconds; more where more threads than four wait for the
# interpreter lock between the calls of the system.
SLOW_S = 300e-6
# Chunks that are decoded while those of all lanes are computed.
MORE_OPEN = 2
# Threads that wait for the disk; fewer are started where it is fast.
MAX_READERS = 64
# Images whose vectors may be ready before those of an earlier, slow one, and bytes of them.
WINDOW, WINDOW_BYTES = 2048, 64 << 20


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
    items: Sequence[Item],
    groups: Sequence[Group],
    *,
    max_pixels: int,
    claims: Claims | None = None,
    decode_processes: int = 0,
) -> Generator[Computed, None, None]:
    """Yield the vectors of all images for all groups that miss them, in chunks; the groups have to be started.

    claims: on the contents of files whose digest is not known, or is another than the known one; without them such
    files are refused. decode_processes: processes that decode, where there are more than a few images; 0 for threads.
    Refused images are part of the result. Raises EngineError or OutOfMemory. Closing the generator stops the threads.
    """
    if len(items) > FEW_IMAGES:
        import torch  # noqa: F401 (to resize)
    engines = [group.started for group in groups]
    size = max(engine.batch_size for engine in engines)
    row_bytes = 4 * sum(plan.spec.feature_dim for group in groups for plan in group.plans.values())
    window = min(WINDOW, WINDOW_BYTES // max(1, row_bytes)) // size
    lines = (_on_cpu if engines[0].device == "cpu" else _behind_decoders)(engines, size, window)
    items = _by_missing_groups(items, groups)
    if decode_processes and len(items) > FEW_IMAGES:
        from featurecache.extract.job.decoding.processes import N_DESKS, DecodeProcesses

        lines = replace(lines, n_open=lines.n_lanes + MORE_OPEN, n_decoders=N_DESKS * decode_processes)
        processes = DecodeProcesses(
            groups,
            n=decode_processes,
            size=min(size, len(items)),
            n_batches=lines.n_open,
            max_pixels=max_pixels,
            slow_s=SLOW_S,
            claims=claims,
        )
        return _compute(items, lines, processes)
    n_readers = min(MAX_READERS, 8 + 4 * max(lines.n_lanes, lines.n_decoders))
    threads = DecodeThreads(
        Decoder(groups, max_pixels, claims),
        n_readers=n_readers,
        n_ahead=n_readers + lines.n_open * -(-lines.size // lines.part),
        slow_s=SLOW_S * max(1.0, lines.n_decoders / 4),
        is_pinned=lines.is_pinned,
    )
    return _compute(items, lines, threads)


@dataclass(frozen=True)
class Lines:
    """How many threads do what.

    size: images of a chunk. window: chunks whose results may wait for an earlier one. n_open: chunks that are being
    decoded or computed. n_lanes: those that are computed. n_decoders: threads that share the decoding of chunks; 0
    where the thread of a chunk decodes it. share: threads of torch's operators in each lane. is_pinned: whether the
    pixels are in page-locked memory.
    """

    size: int
    window: int
    n_open: int
    n_lanes: int
    n_decoders: int
    share: int = 1
    is_pinned: bool = False

    @property
    def part(self) -> int:
        """The images of a chunk that one thread decodes."""
        return min(PART, -(-self.n_open * self.size // max(1, self.n_decoders)))


def _on_cpu(engines: Sequence[Engine], size: int, window: int) -> Lines:
    """Return the threads for engines on the CPU: all have as many lanes as the one with the most."""
    n_lanes, n_cores = max(engine.n_lanes for engine in engines), count_cores()
    for engine in engines:
        if engine.n_lanes < n_lanes:
            engine.allow_lanes(n_lanes)
    share = max(1, n_cores // n_lanes)
    return Lines(size, window, n_lanes, n_lanes, n_decoders=0 if n_lanes > 1 else n_cores, share=share)


def _behind_decoders(engines: Sequence[Engine], size: int, window: int) -> Lines:
    """Return the threads for engines on another device."""
    n_lanes, is_cuda = max(engine.n_lanes for engine in engines), engines[0].device.startswith("cuda")
    n_decoders = min(MAX_DECODERS, count_cores())
    return Lines(size, window, n_lanes + MORE_OPEN, n_lanes, n_decoders=n_decoders, is_pinned=is_cuda)


class _Stopped(Exception):
    """The results are not wanted any more."""


def _compute(
    items: Sequence[Item], lines: Lines, decoding: DecodeThreads | DecodeProcesses
) -> Generator[Computed, None, None]:
    lanes, stopped = Semaphore(lines.n_lanes), Event()
    with (
        torch_threads(lines.share),
        decoding,
        ThreadPoolExecutor(max(1, lines.n_decoders), "decode", use_threads, (1,)) as pool,
    ):

        def check() -> None:
            if stopped.is_set():
                raise _Stopped

        def stop() -> None:
            stopped.set()
            decoding.stop()

        def decode(part: Any, items: Sequence[Item], batch: Batch, start: int) -> list[Decoded]:
            check()
            return decoding.decode(part, items, batch, start=start, check=check)

        def work(chunk: Chunk) -> Computed:
            starts = [*accumulate((len(items) for _, items in chunk), initial=0)]
            with decoding.batch(starts.pop()) as batch:
                parts = [(*each, batch, start) for each, start in zip(chunk, starts, strict=True)]
                if lines.n_decoders:
                    decoded = [future.result() for future in [pool.submit(decode, *part) for part in parts]]
                else:
                    decoded = [decode(*part) for part in parts]
                with lanes:
                    return forward([*chain.from_iterable(decoded)], batch)

        yield from load_ahead(
            _chunks(items, lines, decoding),
            work,
            n_threads=lines.n_open,
            n_ahead=max(2 * lines.n_open, lines.window),
            begin=partial(use_threads, lines.share),
            end=stop,
        )


def _chunks(items: Sequence[Item], lines: Lines, decoding: DecodeThreads | DecodeProcesses) -> Iterator[Chunk]:
    """Yield the items in chunks of parts, which are expected to be decoded."""
    for start in range(0, len(items), lines.size):
        stop = min(len(items), start + lines.size)
        parts = [items[at : min(stop, at + lines.part)] for at in range(start, stop, lines.part)]
        yield [(decoding.expect(part), part) for part in parts]


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Limit the threads of torch's operators, in this thread and in new ones, while the context is active."""
    if not is_loaded():
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_threads(n_threads: int) -> None:
    """Limit the threads of torch's operators that are called from this thread."""
    if not is_loaded():
        return
    import torch

    torch.get_num_threads()  # its first call in a thread adopts the number that any thread has set last
    torch.set_num_threads(n_threads)


def is_loaded() -> bool:
    """Whether torch is imported; a few images need none of it, and to import it takes longer than they do."""
    return "torch" in sys.modules


def forward(decoded: list[Decoded], batch: Batch) -> Computed:
    """Run the networks on the pixels of a chunk."""
    rows: dict[tuple[Group, Kind], Sequence[int]] = {}
    first = decoded[0].images
    if all(item.images is first for item in decoded):
        rows = dict.fromkeys(first, range(len(decoded)))
    else:
        for each in dict.fromkeys(chain.from_iterable(item.images for item in decoded)):
            rows[each] = [row for row, item in enumerate(decoded) if each in item.images]
    computed = Computed(decoded)
    for (group, kind), places in rows.items():
        started = time.perf_counter()
        vectors = group.started.run(batch.images(kind, places))
        keys = [(decoded[row].digest, decoded[row].name) for row in places]
        computed.vectors.append(GroupVectors(group, keys, vectors, time.perf_counter() - started))
    return computed


def _by_missing_groups(items: Sequence[Item], groups: Sequence[Group]) -> Sequence[Item]:
    """Return the items sorted by the groups that miss them, so that the batches of every group are full."""
    if len(groups) == 1:
        return items
    return sorted(items, key=lambda item: [item[0] is None or group.misses(item[0]) for group in groups])
