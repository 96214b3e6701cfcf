"""Features of items, kept in an ordinary cache by content, or of a network alone where there is no cache.

paths                     extracted as `extract_features` does it: digests from the memo, missing images computed
bytes                     under the SHA-256 of the file that they are, so that the file itself has the same row
arrays, decoded images    under the SHA-256 of their upright pixels, which no file has
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featurecache.base.errors import ImageRefused, WeightsMismatch
from featurecache.extract.backbones.libraries.definitions import library_facts
from featurecache.extract.backbones.named_file import file_and_part
from featurecache.extract.cache.compact import merge_if_many
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.spec import FeatureSpec, image_digest
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.decoding.revisions import last_revision
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.sources import can_be_path
from featurecache.extract.in_memory.items import BYTES, is_pil, path_of
from featurecache.extract.in_memory.network import ImageNetwork, ImageNetworks, refused_item
from featurecache.extract.in_memory.pixels import undecoded
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.loading import load_together
from featurecache.extract.job.request import (
    FeatureRequest,
    Resolved,
    recall,
    remember,
    resolve,
    with_absolute_path,
)
from featurecache.extract.job.settings import Settings
from featurecache.extract.job.writer import record_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

# Networks that stay loaded: copies of an estimator and calls of it share them.
MOST_NETWORKS = 2
# Rows of one shard: 2,048 numbers each are 32 MB.
SHARD_ROWS = 4096
# The memo of no cache: nothing is in it, and it is kept in memory.
NOWHERE = Path(os.devnull)
# Of threads that ask for one network at once, one loads it.
_LOADING = Lock()


class Row(NamedTuple):
    """An item that is no path: its number, its digest, and what is decoded."""

    number: int
    digest: bytes
    item: Any


def features_without_cache(request: FeatureRequest, items: Sequence[Any], settings: Settings) -> NDArray[np.float32]:
    """Return the features of N items: float32 (N, D).

    Raises ImageRefused that names the first refused item, BackboneError, EngineError.
    """
    network = _network_alone(request, settings)
    return ImageNetworks({"": network}, max_pixels=settings.max_pixels).vectors(items)[""]


def dim_without_cache(request: FeatureRequest, settings: Settings) -> int:
    """Return D. Raises BackboneError."""
    return _network_alone(request, settings).spec.feature_dim


def cached_features(
    request: FeatureRequest, items: Sequence[Any], cache_root: Path, settings: Settings
) -> NDArray[np.float32]:
    """Return the features of N items: float32 (N, D); those that the cache lacks are computed and written first.

    Raises ImageRefused that names the first refused item, BackboneError, EngineError, CacheError.
    """
    # A path that no file can have stays as it is, for `abspath` of early versions of Python 3.11 ends it at its NUL.
    paths = {
        i: os.path.abspath(path) if can_be_path(path) else path  # noqa: PTH100
        for i, each in enumerate(items)
        if (path := path_of(each))
    }
    samples = tuple(Sample(path, path) for path in dict.fromkeys(paths.values()))
    report = extract_features(Manifest(Path(), samples), [request], cache_root, settings=settings)
    refused = {each.name: each.reason for each in report.refusals}
    end = next((i for i, path in paths.items() if path in refused), len(items))
    refusal = refused_item(items[end], end, ImageRefused(refused[paths[end]])) if end < len(items) else None
    others = list[Row]()
    for i in (i for i in range(end) if i not in paths):
        try:
            others.append(_row(items[i], i))
        except ImageRefused as error:
            refusal = error
            break
    cache = report.filled[0].cache
    _fill(cache, request, report.filled[0].resolved, others, settings)  # raises for those before the refused one
    if refusal is not None:
        raise refusal
    known = {sample.path: digest for sample, digest in zip(report.samples, report.digests, strict=True)}
    digests = np.zeros((len(items), 32), dtype=np.uint8)
    for i, path in paths.items():
        digests[i] = known[path]
    for row in others:
        digests[row.number] = np.frombuffer(row.digest, np.uint8)
    return cache.lookup(digests)


def cached_dim(request: FeatureRequest, cache_root: Path, settings: Settings) -> int:
    """Return D. Raises BackboneError, CacheError."""
    report = extract_features(Manifest(Path(), ()), [request], cache_root, settings=settings)
    return report.filled[0].resolved.spec.feature_dim


def _row(item: Any, number: int) -> Row:
    """Return an item that is no path with its digest. Raises ImageRefused that names it."""
    try:
        plain = undecoded(item) if is_pil(item) else item
    except ImageRefused as error:
        raise refused_item(item, number, error) from None
    if isinstance(plain, BYTES):
        return Row(number, image_digest(bytes(plain)), plain)
    described = f"pixels {plain.shape}".encode()
    return Row(number, hashlib.sha256(described + np.ascontiguousarray(plain).tobytes()).digest(), plain)


def _fill(
    cache: FeatureCache, request: FeatureRequest, resolved: Resolved, rows: Sequence[Row], settings: Settings
) -> None:
    """Compute and write the rows that the cache lacks, each content once."""
    if not rows:
        return
    digests = np.frombuffer(b"".join(row.digest for row in rows), np.uint8).reshape(-1, 32)
    absent = cache.missing(digests) | cache.outdated(digests, last_revision(resolved.spec.decode))
    wanted = list({row.digest: row for row, is_absent in zip(rows, absent, strict=True) if is_absent}.values())
    if not wanted:
        return
    with _LOADING:
        network = _network(resolved.spec, request, cache.folder, settings)
    for start in range(0, len(wanted), SHARD_ROWS):
        some, started = wanted[start : start + SHARD_ROWS], time.perf_counter()
        # Numbered as the program numbers them, so that a refusal names the right one.
        vectors = ImageNetworks({"": network}, max_pixels=settings.max_pixels).vectors(
            [row.item for row in some], numbers=[row.number for row in some]
        )[""]
        stored = ShardRows(
            vectors.astype(resolved.spec.dtype),
            np.frombuffer(b"".join(row.digest for row in some), np.uint8).reshape(-1, 32),
            ["memory" for _ in some],
        )
        cache.add(stored, record_of(network.engine, resolved.weights, time.perf_counter() - started))
    cache.refresh()
    merge_if_many(cache, _silent)


@lru_cache(MOST_NETWORKS)
def _network(spec: FeatureSpec, request: FeatureRequest, folder: Path, settings: Settings) -> ImageNetwork:
    from featurecache.extract.cache.ranges import read_ranges

    return ImageNetwork(
        spec,
        folder,
        lambda: _module(request, spec),
        settings=settings,
        ranges=(lambda: read_ranges(folder, spec)) if spec.ranges else None,
    )


def _network_alone(request: FeatureRequest, settings: Settings) -> ImageNetwork:
    """Return the network of a request where there is no cache; another once its files have changed."""
    asked = with_absolute_path(request)
    path, state = file_and_part(asked.weights)[0] if asked.weights else None, None
    with contextlib.suppress(OSError):
        state = FileState.of(path.stat()) if path is not None else None
    with _LOADING:
        return _lone_network(asked, settings, json.dumps([state, library_facts(asked.backbone)]))


@lru_cache(MOST_NETWORKS)
def _lone_network(request: FeatureRequest, settings: Settings, _: str) -> ImageNetwork:
    """Return the network of a request and of files in some state; in int8 its ranges are measured."""
    loaded = []
    with Memo(NOWHERE, read_only=True) as memo:
        resolved = recall(request, memo) if request.precision != "int8" else None
        if resolved is None:
            loaded.append(load_together([request]))
            resolved = resolve(request, loaded[0].backbone, loaded[0].cut_for(request))
            remember(request, resolved, loaded[0].backbone, memo)
    return ImageNetwork(
        resolved.spec,
        NOWHERE / resolved.spec.folder_name,
        lambda: loaded.pop().backbone.module if loaded else _module(request, resolved.spec),
        settings=settings,
    )


def _module(request: FeatureRequest, spec: FeatureSpec) -> nn.Module:
    """Load the network of a request. Raises BackboneError, also where it is another than that of the spec by now."""
    found = load_together([request]).backbone
    if found.weights_digest != spec.weights_digest:
        raise WeightsMismatch(f"{found.weights_path.name} changed while it was being read; run the same command again")
    return found.module


def _silent(_: str) -> None:
    pass
