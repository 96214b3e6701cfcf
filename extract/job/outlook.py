"""What an extraction is about to do, in one line, and whether the disk has the space for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from featurecache.base.errors import CacheUnwritable
from featurecache.base.text import count, readable_bytes
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.images.digests import Digested, n_distinct
from featurecache.extract.job.plan import Work

# HDF5 structures, checksums, digests and paths in addition to the vectors: measured 130 bytes a row, rounded up.
OVERHEAD_BYTES_PER_ROW = 256


def outlook(work: Work, digested: Digested, cache_root: Path) -> str:
    """Return one line on the work to do. Raises CacheUnwritable if the disk has too little space."""
    n_vectors = sum(len(plan.missing) for plan in work.plans)
    needed = sum(len(plan.missing) * _bytes_per_row(plan.spec) for plan in work.plans)
    free = shutil.disk_usage(cache_root).free
    if needed > free:
        raise CacheUnwritable(
            f"{n_vectors:,} vectors need {readable_bytes(needed)} and '{cache_root}' has {readable_bytes(free)} free: "
            f"{readable_bytes(needed - free)} too little. Free some space or choose another folder with --cache."
        )
    n_to_do = len(work.missing)
    n_refused = len(work.refused - work.missing)
    n_there = n_distinct(digested.digests) - n_to_do - n_refused
    before = f", {n_refused:,} refused before" if n_refused else ""
    n_caches, n_outdated = sum(bool(plan.missing) for plan in work.plans), max(plan.n_outdated for plan in work.plans)
    into = f" into {n_caches} caches" if n_caches > 1 else ""
    again = f" ({n_outdated:,} of them again: their EXIF orientation is read otherwise now)" if n_outdated else ""
    return (
        f"{count(n_to_do, 'image')} to extract{into}{again}, {n_there:,} already there{before}; "
        f"{readable_bytes(needed)} of disk needed, {readable_bytes(free)} free"
    )


def _bytes_per_row(spec: FeatureSpec) -> int:
    return spec.feature_dim * np.dtype(spec.dtype).itemsize + OVERHEAD_BYTES_PER_ROW
