"""Images that are the same: by their bytes, by their pixels, or nearly, saved, resized or toned again.

Near-copies are sought by the cosine of small grey pictures (`extract.images.fingerprints`), not of features: saved as
JPEG of quality 80, a digit of 28 x 28 pixels moves as far in the features of a network as to another digit of its
class. What counts as near depends on the data: a pair is a near-copy when its correlation is above 0.999, or above 0.99
and five times closer to 1 than that of either with its fifth neighbour. Trousers resemble trousers, but not one pair
far more than the next. Mirrored, turned and cut-out copies are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurecache.classify.evaluation.similarity import close_pairs, nearest_others
from featurecache.extract.images.fingerprints import read_thumbnails, same_pixels
from featurecache.extract.images.manifest import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

SURE = 0.001  # 1 - correlation; the closest pair of different digits of mnist5k is at 0.010
NEAR = 0.01  # no JPEG of quality 80 of either, 1,000 tried, was farther from its original
CLOSER = 0.2  # than the fifth neighbour; the JPEGs were at 0.11 at most
N_NEIGHBOURS = 5
EXACT = 1e-6  # thumbnails this close may be of the same pixels; then the images are compared

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Copies:
    """Images that are the same: all samples in `rows`. same: "bytes", or "pixels" in files that differ."""

    rows: tuple[int, ...]
    same: str


@dataclass(frozen=True)
class NearCopy:
    """Two samples that show nearly the same, and the correlation of their thumbnails."""

    first: int
    second: int
    correlation: float


def same_bytes(digests: NDArray[np.uint8]) -> list[Copies]:
    """The samples that share a digest, from digests (N, 32): one entry for each such image."""
    by_digest: dict[bytes, list[int]] = {}
    for i, row in enumerate(digests):
        by_digest.setdefault(row.tobytes(), []).append(i)
    return [Copies(tuple(rows), "bytes") for rows in by_digest.values() if len(rows) > 1]


def find_near_copies(
    samples: Sequence[Sample],
    digests: NDArray[np.uint8],
    *,
    splits: NDArray[np.str_] | None = None,
    on_reading: OnProgress | None = None,
    on_comparing: OnProgress | None = None,
) -> tuple[list[Copies], list[NearCopy]]:
    """Different files that show the same, of N samples: those of the same pixels, and the rest, the closest first.

    Of images with the same bytes only the first takes part. Of the later images an image is paired with the ten closest
    of every split, splits (N,), so that those of a video are not all their pairs, and a pair across splits is not lost.
    """
    first = _firsts(digests)
    thumbnails = read_thumbnails([samples[i] for i in first], on_progress=on_reading)
    sides = None if splits is None else np.unique(splits[first], return_inverse=True)[1]
    found = near_pairs(thumbnails, sides=sides, on_progress=on_comparing)
    near = [NearCopy(int(first[a]), int(first[b]), r) for a, b, r in found]
    equal = {
        each for each in near if 1 - each.correlation < EXACT and same_pixels(samples[each.first], samples[each.second])
    }
    copies = [Copies((each.first, each.second), "pixels") for each in near if each in equal]
    return copies, [each for each in near if each not in equal]


def near_pairs(
    thumbnails: NDArray[np.float32],
    *,
    sides: NDArray[np.int64] | None = None,
    on_progress: OnProgress | None = None,
) -> list[tuple[int, int, float]]:
    """The near-copies among thumbnails (N, 256) as (row, row, correlation), by the rule above, the closest first."""
    pairs = close_pairs(thumbnails, 1 - NEAR, sides=sides, on_progress=on_progress)
    rows = np.unique(np.concatenate([pairs.first, pairs.second]))
    scale = np.full(len(thumbnails), np.inf)
    if len(thumbnails) > N_NEIGHBOURS:
        scale[rows] = 1 - nearest_others(thumbnails[rows], thumbnails, N_NEIGHBOURS, rows)[1][:, -1]
    distance = 1 - pairs.similarity
    is_near = is_near_copy(distance, np.minimum(scale[pairs.first], scale[pairs.second]))
    order = np.flatnonzero(is_near)[np.argsort(distance[is_near], kind="stable")]
    return [(int(pairs.first[i]), int(pairs.second[i]), min(1.0, float(pairs.similarity[i]))) for i in order]


def is_near_copy(distance: NDArray[np.floating], scale: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether pairs at `distance` (P,) are near-copies where other neighbours are at `scale` (P,); both 1 - r."""
    return np.asarray((distance <= SURE) | ((distance <= NEAR) & (distance <= CLOSER * scale)))


def _firsts(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The first sample of every distinct image."""
    seen: dict[bytes, int] = {}
    for i, row in enumerate(digests):
        seen.setdefault(row.tobytes(), i)
    return np.array(list(seen.values()), dtype=np.int64)
