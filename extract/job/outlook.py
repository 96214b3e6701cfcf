"""The outlook of an extraction: whether anything is missing, how much, and the disk space that it needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import CacheError, CacheUnwritable
from featurecache.base.text import count, readable_bytes
from featurecache.extract.backbones.names import name_in_spec
from featurecache.extract.cache.inventory import find_caches
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.spec import PRECISIONS, FeatureSpec
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.extract.images.digests import Digested, n_distinct
from featurecache.extract.job import request as requests
from featurecache.extract.job.plan import Work
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

# HDF5 structures, checksums, digests and paths in addition to the vectors: measured 130 bytes a row, rounded up.
OVERHEAD_BYTES_PER_ROW = 256


def check_engines(asked: Sequence[FeatureRequest], settings: Settings, cache_root: Path) -> None:
    """Raise EngineError, before any work, for a request that no cache may answer and this machine cannot compute."""
    for request in asked:  # a warm run loads no engine
        usual = (settings.engine, settings.device, request.precision) == ("auto", "auto", PRECISIONS[0])
        if not usual and not _may_be_there(request, cache_root):
            from featurecache.extract.engines.build import check_engine

            check_engine(settings.engine, settings.device, request.precision)


def _may_be_there(request: FeatureRequest, cache_root: Path) -> bool:
    """Whether a cache has features of this backbone in this precision, or is damaged."""
    wanted = name_in_spec(request.backbone), request.precision
    try:
        specs = [spec for folder in find_caches(cache_root) if (spec := read_spec(folder)) is not None]
    except CacheError:
        return True
    return any((spec.backbone, spec.precision) == wanted for spec in specs)


def lacks_rows(asked: Sequence[FeatureRequest], cache_root: Path, memo: Memo) -> Callable[[NDArray[np.uint8]], bool]:
    """Return a function that is called with the digests (n, 32) of more and more images, first of none.

    It returns whether each of the requested caches lacks a row for one of these images, or has no rows at all, so that
    all networks are needed. Without a remembered request it depends on all digests whether a cache of another version
    holds them, so that they have to be known first; unless there are no caches.
    """
    resolved = [requests.recall(request, memo) for request in asked]
    if None in resolved:
        has_caches = bool(find_caches(cache_root))
        return lambda digests: not has_caches
    specs = {each.spec for each in resolved if each is not None}
    whole = [cache for cache in (FeatureCache(cache_root, spec) for spec in specs) if len(cache)]

    def all_lack(digests: NDArray[np.uint8]) -> bool:
        whole[:] = [cache for cache in whole if not cache.missing(digests).any()]
        return not whole

    return all_lack


def needed_bytes(work: Work, n_unread: int = 0) -> int:
    """Return the disk space for the missing rows, if each of `n_unread` files is missing too."""
    return sum((len(plan.missing) + n_unread) * _bytes_per_row(plan.spec) for plan in work.plans)


def outlook(work: Work, digested: Digested, cache_root: Path, *, n_unread: int = 0) -> str:
    """Return one line on the work to do. Raises CacheUnwritable if the disk has too little space."""
    n_vectors = sum(len(plan.missing) + n_unread for plan in work.plans)
    needed = needed_bytes(work, n_unread)
    free = shutil.disk_usage(cache_root).free
    if needed > free:
        raise CacheUnwritable(
            f"{n_vectors:,} vectors need {readable_bytes(needed)} and '{cache_root}' has {readable_bytes(free)} free: "
            f"{readable_bytes(needed - free)} too little. Free some space or choose another folder with --cache."
        )
    n_to_do, at_most = len(work.missing), "up to " if n_unread else ""
    n_refused = len(work.refused - work.missing)
    n_damaged = len(set().union(*(plan.damaged for plan in work.plans)) - work.missing)
    n_there = n_distinct(digested.digests) - n_to_do - n_refused
    found = f", {n_damaged:,} found damaged" if n_damaged else ""
    before = f", {n_refused - n_damaged:,} refused before{found}" if n_refused > n_damaged else found
    n_caches, n_outdated = sum(bool(plan.missing) for plan in work.plans), max(plan.n_outdated for plan in work.plans)
    into = f" into {n_caches} caches" if n_caches > 1 else ""
    again = f" ({n_outdated:,} of them again: their images are read otherwise now)" if n_outdated else ""
    return (
        f"{at_most}{count(n_to_do + n_unread, 'image')} to extract{into}{again}, {n_there:,} already there{before}; "
        f"{readable_bytes(needed)} of disk needed, {readable_bytes(free)} free"
    )


def _bytes_per_row(spec: FeatureSpec) -> int:
    return spec.feature_dim * np.dtype(spec.dtype).itemsize + OVERHEAD_BYTES_PER_ROW
