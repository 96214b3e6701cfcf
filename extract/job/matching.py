"""Matching of caches to a request by their spec, without its weights and if the memo has no entry for it.

The layer, pooling, size and transform of a request follow from the code, without weights: networks are built from
shapes. Each cache records the name and the digest of its weights. So after an upgrade, or on a machine without the
weights, features are still found:

    spec.json of a cache                  compared with
    backbone, precision and so on         the fields of the request with the same names
    layer, pooling, feature_dim, network  the network cut as requested, on the meta device
    transform                             that of the requested weights, changed by the request; if they are
                                          unknown, the changes of the request only
    weights_digest                        the digest of the user's file, if it was read before in its present state;
                                          otherwise the names of the weights are compared

A file of the user that was not read in its present state has to be read: its name does not identify its content.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.errors import (
    BackboneError,
    CacheError,
    UnknownBackbone,
    UnknownLayer,
    UnknownWeights,
    WeightsMissing,
)
from featurecache.extract.backbones.listing import check_name
from featurecache.extract.cache.inventory import find_caches
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.decode_rules import DECODE_VERSION
from featurecache.extract.job import request as requests
from featurecache.extract.job.activation_ranges import with_known_ranges
from featurecache.extract.job.loading import load_together
from featurecache.extract.job.request import FeatureRequest, Resolved, fields_in_spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.extract.backbones.weights_source import WeightsSource


@dataclass(frozen=True)
class MatchingCache:
    """A cache with a row for every image. has_weights: whether its weights are the requested ones, None if unknown."""

    resolved: Resolved
    cache: FeatureCache
    has_weights: bool | None


@dataclass(frozen=True)
class RequestedWeights:
    """What is known about the requested weights without reading them.

    name: as shards record it; None for the default weights if it is unknown.
    digest: of the tensors, if the file was read before in its present state.
    is_unread: whether they are a file of the user that was not.
    transform: the one that they expect, None if it is unknown.
    path: of the file, if it is on this machine and can be loaded without a download.
    """

    name: str | None
    digest: str | None = None
    is_unread: bool = False
    transform: TransformSpec | None = None
    path: Path | None = None

    def are_named(self, names: Collection[str]) -> bool:
        """Whether these are the names that shards record for them; old shards record none."""
        return self.name is None or not names or self.name.lower() in {name.lower() for name in names}


def find_matching(
    request: FeatureRequest, digests: NDArray[np.uint8], *, cache_root: Path, memo: Memo, allow_refused: bool = True
) -> list[MatchingCache]:
    """Return the caches with the spec of the request, as far as it is known, and a row for every digest (N, 32).

    allow_refused: images that extract refused for a cache need no row in it. Caches with weights of another name are
    last, with has_weights False. Raises UnknownBackbone or UnknownLayer for a request with unknown names.
    """
    holding = _holding(request, digests, cache_root=cache_root, memo=memo, allow_refused=allow_refused)
    if not holding:
        return []
    weights = weights_of(request, memo)
    found = []
    for each in holding:
        spec = each.spec
        if not _has_requested_transform(spec, request, weights) or not _has_requested_cut(spec, request):
            continue
        names = list(dict.fromkeys(str(record["weights"]) for record in each.records() if "weights" in record))
        shown = weights.name if weights.name in names else ", ".join(names)
        found.append(MatchingCache(Resolved(spec, shown or "unknown"), each, _has_weights(spec, names, weights)))
    return sorted(found, key=lambda each: each.has_weights is False)


def find_unique(
    request: FeatureRequest, digests: NDArray[np.uint8], *, cache_root: Path, memo: Memo, allow_refused: bool = True
) -> MatchingCache | None:
    """Return the only cache with the requested weights, and remember its spec; None if there is none or several."""
    found = find_matching(request, digests, cache_root=cache_root, memo=memo, allow_refused=allow_refused)
    sure = [each for each in found if each.has_weights]
    if len(sure) != 1:
        return None
    requests.remember_file(request, sure[0].resolved, weights_of(request, memo).path, memo)
    return sure[0]


def load_if_here(request: FeatureRequest, memo: Memo) -> Resolved | None:
    """Resolve a request by loading its backbone, and remember it; None if the weights are not on this machine.

    In int8 its activation ranges are those of a cache, if there is one.

    Raises BackboneError if they cannot be loaded.
    """
    if weights_of(request, memo).path is None:
        return None
    loaded = load_together([request])
    resolved = requests.resolve(request, loaded.backbone, loaded.cut_for(request))
    resolved = with_known_ranges(resolved, memo.path.parent)
    requests.remember(request, resolved, loaded.backbone, memo)
    return resolved


def check_named(request: FeatureRequest) -> None:
    """Raise UnknownBackbone, UnknownWeights or UnknownLayer for a request with unknown names."""
    try:
        check_name(request.backbone)  # before torch is imported
        from featurecache.extract.backbones.weights import find_weights

        source = find_weights(request.backbone, request.weights)
    except (UnknownBackbone, UnknownWeights):
        raise
    except BackboneError:  # loading the file raises an error with the reason
        return
    requested_cut(request, request.adapted(source.transform))


def weights_of(request: FeatureRequest, memo: Memo) -> RequestedWeights:
    """Return what is known about the requested weights, without reading or downloading them."""
    from featurecache.extract.backbones.weights import find_weights

    try:
        source = find_weights(request.backbone, request.weights)
    except WeightsMissing:  # for example a deleted file: there may be caches of it
        name = Path(request.weights or "").name.rpartition("Weights.")[2]
        return RequestedWeights(None if name.lower() in ("", "default") else name)
    digest = _digest_in_this_state(source, memo) if source.is_own else None
    return RequestedWeights(
        source.name,
        digest=digest,
        is_unread=source.is_own and digest is None,
        transform=request.adapted(source.transform),
        path=source.path if source.is_local else None,
    )


def _digest_in_this_state(source: WeightsSource, memo: Memo) -> str | None:
    """Return the digest of a file's tensors, if any version of this package read it in its present state."""
    assert source.path is not None
    path = str(source.path.resolve())
    state = list(FileState.of(source.path.stat()))
    for _, answer in memo.answers():
        try:
            values = json.loads(answer)
            known = values["weights_path"], values["state"], values["spec"]["backbone"], values["weights"]
            if known == (path, state, source.backbone, source.name):
                return str(values["spec"]["weights_digest"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _holding(
    request: FeatureRequest, digests: NDArray[np.uint8], *, cache_root: Path, memo: Memo, allow_refused: bool
) -> list[FeatureCache]:
    """Return the undamaged caches with the fields of the request and a row for every image."""
    found = []
    try:
        folders = find_caches(cache_root) if len(digests) else []
    except CacheError:
        return []
    for folder in folders:
        try:
            spec = read_spec(folder)
            if spec is None or folder.name != spec.folder_name or not _has_requested_fields(spec, request):
                continue
            each = FeatureCache(cache_root, spec)
            absent = digests[each.missing(digests)]
        except CacheError:
            continue
        refused = memo.refusals(spec.key) if allow_refused and len(absent) else {}
        if len(each) and all(bytes(row) in refused for row in absent):
            found.append(each)
    return found


def _has_requested_fields(spec: FeatureSpec, request: FeatureRequest) -> bool:
    """Whether the spec has the values of the request in the fields of the same names."""
    wanted = fields_in_spec(request)
    return spec.decode_version == DECODE_VERSION and all(getattr(spec, n) == value for n, value in wanted.items())


def _has_requested_transform(spec: FeatureSpec, request: FeatureRequest, weights: RequestedWeights) -> bool:
    """Whether the spec has the transform of the requested weights, as far as it is known."""
    if weights.transform is not None:
        return spec.transform == weights.transform
    return spec.transform == request.adapted(spec.transform)


def _has_requested_cut(spec: FeatureSpec, request: FeatureRequest) -> bool:
    return requested_cut(request, spec.transform) == (spec.layer, spec.pooling, spec.feature_dim, spec.network)


def requested_cut(request: FeatureRequest, transform: TransformSpec) -> tuple[str, str, int, str] | None:
    """Return layer, pooling, feature_dim and network of a request, from shapes alone; None if that cut is not possible.

    Raises UnknownBackbone, UnknownLayer.
    """
    return _cut(request.backbone, request.layer, request.pooling, transform)


@cache
def _cut(
    backbone: str, layer: str | None, pooling: str | None, transform: TransformSpec
) -> tuple[str, str, int, str] | None:
    from featurecache.extract.backbones.cuts import CutRequest
    from featurecache.extract.backbones.cutting import cut_network
    from featurecache.extract.backbones.registry import network_for_shapes

    try:
        network = network_for_shapes(backbone, transform.crop)
        (cut,) = cut_network(backbone, network, transform, [CutRequest(layer, pooling)]).cuts
    except (UnknownBackbone, UnknownLayer):
        raise
    except BackboneError:
        return None
    return cut.layer, cut.pooling, cut.feature_dim, network.definition


def _has_weights(spec: FeatureSpec, names: Collection[str], weights: RequestedWeights) -> bool | None:
    if weights.is_unread:
        return None
    return weights.are_named(names) if weights.digest is None else spec.weights_digest == weights.digest
