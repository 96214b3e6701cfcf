"""The cache of a request, and the images that it lacks because they were refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.errors import FeaturesMissing, PipelineError
from featurecache.base.text import printable
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.job.matching import check_named, find_matching, find_unique, load_if_here
from featurecache.extract.job.request import FeatureRequest, Resolved, recall
from featurecache.features.nearest_features import ambiguous_caches
from featurecache.runs.command_lines import parts_of_all

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def find_cache(
    request: FeatureRequest, digests: NDArray[np.uint8], *, cache_root: Path, memo: Memo
) -> tuple[Resolved, FeatureCache] | None:
    """Return the cache of a request, with or without rows for all images (N, 32); None where it cannot be determined.

    A remembered request counts first, then the specs of the caches that have all of the images. The
    backbone is loaded only where that leaves it open and its weights are here. Raises PipelineError where two caches
    are as asked for, BackboneError where the request names what is not there.
    """
    resolved = recall(request, memo)
    if resolved is not None:
        return resolved, FeatureCache(cache_root, resolved.spec)
    only = find_unique(request, digests, cache_root=cache_root, memo=memo)
    if only is not None:
        return only.resolved, only.cache
    alike = find_matching(request, digests, cache_root=cache_root, memo=memo)
    resolved = load_if_here(request, memo) if alike else None
    if resolved is not None:
        return resolved, FeatureCache(cache_root, resolved.spec)
    sure = [each for each in alike if each.has_weights]
    if len(sure) > 1:
        raise PipelineError(ambiguous_caches(request, sure, cache_root))
    return None


def refused_images(
    digests: NDArray[np.uint8],
    requests: Sequence[FeatureRequest],
    cache_root: Path,
    memo: Memo,
    *,
    wanted: NDArray[np.uint8] | None = None,
) -> dict[bytes, str]:
    """SHA-256 -> reason of the images (N, 32) that a requested cache lacks because extract refused them.

    wanted: those of them (M, 32) that have to be in a cache for it to be the one; all where not given.
    """
    refused: dict[bytes, str] = {}
    for request in parts_of_all(requests):
        found = find_cache(request, digests if wanted is None else wanted, cache_root=cache_root, memo=memo)
        reasons = memo.refusals(found[0].spec.key) if found is not None else {}
        if found is not None and reasons:
            absent = {bytes(row) for row in digests[found[1].missing(digests)]}
            refused.update({digest: reason for digest, reason in reasons.items() if digest in absent})
    return refused


def whole_cache(
    found: tuple[Resolved, FeatureCache] | None,
    request: FeatureRequest,
    *,
    digests: NDArray[np.uint8],
    cache_root: Path,
) -> tuple[Resolved, FeatureCache]:
    """Return the cache that was found. Raises FeaturesMissing where it lacks features of any digest."""
    n = len(digests) if found is None else int(found[1].missing(digests).sum())
    if found is not None and not n:
        return found
    check_named(request)
    raise FeaturesMissing(
        f"{n:,} of {len(digests):,} images have no features of {request.backbone} in '{printable(cache_root)}'.",
        n_missing={request: n},
        cache_root=cache_root,
    )
