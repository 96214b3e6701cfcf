"""Caches matched to a request by their spec, where nothing is remembered of it; its weights need not be here.

A request names a network, cut and pooled somewhere, behind a transform. All of that follows from the code, without
weights: networks are built from shapes. Each cache records what the tensors were: the name under which the weights
were asked for, and their digest. So after an upgrade, or on a machine without the weights, features are still found:

    spec.json of a cache                  compared with
    backbone, precision and so on         the request, which has them by the same names
    layer, pooling, feature_dim           the network cut as asked, on the meta device
    transform                             that of the weights asked for, changed as the request says; where
                                          they are unknown, what the request changes of its own
    weights_digest                        what was read from the user's file when it was in the state that it is in now;
                                          otherwise the name that the shards record, with that of the weights asked for

A file of the user's that is here and was never read in this state has to be read: its name proves nothing.
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
from featurecache.extract.cache.inventory import find_caches
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.decode_rules import DECODE_VERSION
from featurecache.extract.job import request as requests
from featurecache.extract.job.request import VERBATIM, FeatureRequest, Resolved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.extract.backbones.weights import WeightsSource


@dataclass(frozen=True)
class MatchingCache:
    """A cache that holds the images, and whether its weights are those asked for; None where that is not known."""

    resolved: Resolved
    cache: FeatureCache
    has_weights: bool | None


@dataclass(frozen=True)
class RequestedWeights:
    """What is known of the weights that a request names, without reading them.

    name: as shards record it; None where it is the default's and cannot be found out.
    digest: of the tensors, where the file was read in the state that it is in now.
    is_unread: whether they are a file of the user's that is here and was not.
    transform: what they expect, None where that is not known.
    path: of the file, where it is here, so that they can be loaded without fetching anything.
    """

    name: str | None
    digest: str | None = None
    is_unread: bool = False
    transform: TransformSpec | None = None
    path: Path | None = None

    def are_named(self, names: Collection[str]) -> bool:
        """Whether they are the ones that shards record under these names; shards of old record none."""
        return self.name is None or not names or self.name.lower() in {name.lower() for name in names}


def find_matching(
    request: FeatureRequest, digests: NDArray[np.uint8], *, cache_root: Path, memo: Memo, allow_refused: bool = True
) -> list[MatchingCache]:
    """The caches with a row for every image (N, 32) and the spec of the request, as far as that is known.

    allow_refused: images that extract refused for a cache need no row in it. Those whose weights have another name come
    last, with has_weights False. Raises UnknownBackbone or UnknownLayer where the request names what is not there.
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
    """The one cache that is what the request resolves to, remembered; None where there is no such, or more than one."""
    found = find_matching(request, digests, cache_root=cache_root, memo=memo, allow_refused=allow_refused)
    sure = [each for each in found if each.has_weights]
    if len(sure) != 1:
        return None
    requests.remember_file(request, sure[0].resolved, weights_of(request, memo).path, memo)
    return sure[0]


def load_if_here(request: FeatureRequest, memo: Memo) -> Resolved | None:
    """What the request resolves to by loading its backbone, remembered; None where the weights are not on this machine.

    Raises BackboneError where they cannot be loaded.
    """
    if weights_of(request, memo).path is None:
        return None
    loaded = requests.load_together([request])
    resolved = requests.resolve(request, loaded.backbone, loaded.cut_for(request))
    requests.remember(request, resolved, loaded.backbone, memo)
    return resolved


def check_named(request: FeatureRequest) -> None:
    """Raise UnknownBackbone, UnknownWeights or UnknownLayer where the request names what is not there."""
    from featurecache.extract.backbones.architectures import check_name
    from featurecache.extract.backbones.weights import find_weights

    check_name(request.backbone)
    try:
        source = find_weights(request.backbone, request.weights)
    except UnknownWeights:
        raise
    except BackboneError:  # whoever reads the file reports what is wrong with it
        return
    requested_cut(request, request.adapted(source.transform))


def weights_of(request: FeatureRequest, memo: Memo) -> RequestedWeights:
    """What is known of the weights that a request names, without reading them or fetching anything."""
    from featurecache.extract.backbones.weights import find_weights

    try:
        source = find_weights(request.backbone, request.weights)
    except WeightsMissing:  # a file that is gone, say; caches made with it may be here
        name = Path(request.weights or "").name.rpartition("Weights.")[2]
        return RequestedWeights(None if name.lower() in ("", "default") else name)
    is_own = _is_own_file(source, request)
    digest = _digest_in_this_state(source, memo) if is_own else None
    return RequestedWeights(
        source.name,
        digest=digest,
        is_unread=is_own and digest is None,
        transform=request.adapted(source.transform),
        path=source.path if source.is_local else None,
    )


def _is_own_file(source: WeightsSource, request: FeatureRequest) -> bool:
    """Whether it is a file that the user named, whose content its name does not say."""
    return request.weights is not None and source.path is not None and source.name == source.path.name


def _digest_in_this_state(source: WeightsSource, memo: Memo) -> str | None:
    """The digest of a file's tensors, where any version of this package read it in the state that it is in now."""
    assert source.path is not None
    path = str(source.path.resolve())
    state = list(FileState.of(source.path.stat()))
    for _, answer in memo.answers():
        try:
            values = json.loads(answer)
            known = values["weights_path"], values["state"], values["spec"]["backbone"]
            if known == (path, state, source.backbone):
                return str(values["spec"]["weights_digest"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _holding(
    request: FeatureRequest, digests: NDArray[np.uint8], *, cache_root: Path, memo: Memo, allow_refused: bool
) -> list[FeatureCache]:
    """The caches of the request's backbone, precision and so on with a row for every image; damaged ones are none."""
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
    """Whether what the request says outright is so."""
    return spec.decode_version == DECODE_VERSION and all(getattr(spec, n) == getattr(request, n) for n in VERBATIM)


def _has_requested_transform(spec: FeatureSpec, request: FeatureRequest, weights: RequestedWeights) -> bool:
    """Whether images go through the transform that the weights asked for expect, as far as that is known."""
    if weights.transform is not None:
        return spec.transform == weights.transform
    return spec.transform == request.adapted(spec.transform)


def _has_requested_cut(spec: FeatureSpec, request: FeatureRequest) -> bool:
    return requested_cut(request, spec.transform) == (spec.layer, spec.pooling, spec.feature_dim)


def requested_cut(request: FeatureRequest, transform: TransformSpec) -> tuple[str, str, int] | None:
    """Layer, pooling and feature_dim of what a request asks for, from shapes alone; None where there is no such cut.

    Raises UnknownBackbone, UnknownLayer.
    """
    return _cut(request.backbone, request.layer, request.pooling, transform)


@cache
def _cut(
    backbone: str, layer: str | None, pooling: str | None, transform: TransformSpec
) -> tuple[str, str, int] | None:
    from featurecache.extract.backbones.architectures import build_network
    from featurecache.extract.backbones.cutting import CutRequest, cut_network

    try:
        # The size decides about the positions of a vision transformer.
        network = build_network(backbone, {"min_size": (transform.crop, transform.crop)})
        (cut,) = cut_network(backbone, network, transform, [CutRequest(layer, pooling)]).cuts
    except (UnknownBackbone, UnknownLayer):
        raise
    except BackboneError:
        return None
    return cut.layer, cut.pooling, cut.feature_dim


def _has_weights(spec: FeatureSpec, names: Collection[str], weights: RequestedWeights) -> bool | None:
    if weights.is_unread:
        return None
    return weights.are_named(names) if weights.digest is None else spec.weights_digest == weights.digest
