"""The activation ranges of a request in int8: those of a cache of the same network, or measured now.

Ranges are measured once and never again while a cache has them: whatever the machine and the versions, vectors that are
added to a cache are computed with the ranges of the others. A new cache of the same network, for instance of another
data type, takes them over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.extract.cache.ranges import Ranges, find_ranges, has_ranges, lost_ranges, write_ranges
from featurecache.extract.cache.spec import INT8, FeatureSpec
from featurecache.extract.job.loading import LoadedNetwork
from featurecache.extract.job.request import FeatureRequest, Resolved

if TYPE_CHECKING:
    from featurecache.extract.engines.protocol import Source


def with_known_ranges(resolved: Resolved, cache_root: Path) -> Resolved:
    """Return what a request resolved to, in int8 with the ranges of a cache; without if no cache has any."""
    if resolved.spec.precision != INT8:
        return resolved
    ranges = find_ranges(cache_root, resolved.spec)
    return resolved if ranges is None else _with(resolved, ranges.digest)


def with_ranges(
    resolved: Resolved,
    request: FeatureRequest,
    loaded: LoadedNetwork,
    cache_root: Path,
    say: Callable[[str], None],
) -> Resolved:
    """Return what a request resolved to, in int8 with ranges, which are written to its cache folder.

    loaded: its network, with this cut only. say: called before they are measured.
    Raises EngineError if the network cannot run in int8, CacheUnwritable.
    """
    from featurecache.extract.engines.protocol import source_of

    if resolved.spec.precision != INT8:
        return resolved
    ranges = find_ranges(cache_root, resolved.spec)
    if ranges is None:
        assert loaded.is_for([request]), "ranges belong to a network with one cut"
        ranges = _measured(
            resolved.spec, replace(source_of(loaded.backbone), exported=loaded.exported), cache_root, say
        )
    found = _with(resolved, ranges.digest)
    folder = cache_root / found.spec.folder_name
    if not has_ranges(folder, found.spec):
        write_ranges(folder, found.spec, ranges)
    return found


def _measured(spec: FeatureSpec, source: Source, cache_root: Path, say: Callable[[str], None]) -> Ranges:
    """Return measured ranges, with sentences on caches of the same features that have lost theirs."""
    from featurecache.extract.engines.int8 import measure_ranges

    lost = lost_ranges(cache_root, spec)
    for reason in lost.values():
        say(f"Activation ranges are measured again, since they cannot be read from {reason}.")
    ranges = measure_ranges(source, say)
    if (others := find_ranges(cache_root, spec)) is not None:  # another process was as fast
        return others
    if lost and ranges.digest not in lost:
        say("They are other ones than before, so all images are extracted into a new cache.")
    return ranges


def _with(resolved: Resolved, digest: str) -> Resolved:
    return replace(resolved, spec=replace(resolved.spec, ranges=digest))
