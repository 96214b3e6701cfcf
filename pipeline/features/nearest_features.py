"""The nearest features to those that a cache lacks, and the fields that differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.errors import CacheError, FeaturesMissing
from featurecache.base.text import printable
from featurecache.extract.backbones.names import LOCAL, LOCAL_START, library_of, local_folder, name_in_spec
from featurecache.extract.cache.inventory import find_caches
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.extract.job.matching import MatchingCache, requested_cut
from featurecache.extract.job.request import FeatureRequest, Resolved, remembered, with_absolute_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGEST_CHARACTERS = 12  # of a digest, as in the name of a cache folder

Difference = tuple[str, object, object]  # a field, what there is, what was asked for


def features_missing(
    absent: Mapping[FeatureRequest, tuple[Resolved, FeatureCache] | None],
    digests: NDArray[np.uint8],
    *,
    cache_root: Path,
    memo: Memo,
) -> FeaturesMissing:
    """Return the error for images (N, 32) without these features; absent: the cache of each request, if it is known."""
    n_missing, instead = {}, []
    for request, cache in absent.items():
        n_missing[request] = len(digests) if cache is None else int(cache[1].missing(digests).sum())
        if n_missing[request] == len(digests):
            spec = None if cache is None else cache[0].spec
            instead.append(nearest_features(request, spec, digests, cache_root=cache_root, memo=memo))
    names = " and ".join(dict.fromkeys(request.backbone for request in absent))
    finding = f"Not every image has features of {names} in '{cache_root}'."
    sentences = [finding, *(sentence for sentence in dict.fromkeys(instead) if sentence)]
    return FeaturesMissing(" ".join(sentences), n_missing=n_missing, cache_root=cache_root)


def nearest_features(
    request: FeatureRequest,
    asked: FeatureSpec | None,
    digests: NDArray[np.uint8],
    *,
    cache_root: Path,
    memo: Memo,
) -> str:
    """Return a sentence on the nearest other features of these images (N, 32); empty where there are none.

    asked: the spec of the request, where that is known. Where it is not (this request was never extracted), the request
    is compared with those that the other features were made for.
    """
    if library_of(request.backbone) == LOCAL and not os.path.isdir(local_folder(request.backbone)):  # noqa: PTH112
        return (
            f"The folder of {printable(request.backbone)} is not there: if it has moved, name its new place by "
            f"--backbone {LOCAL_START}FOLDER."
        )
    requests: dict[str, list[FeatureRequest]] = {}
    for other, spec in remembered(memo):
        requests.setdefault(spec.key, []).append(other)
    found = [
        _differences(spec, asked) if asked is not None else _least(requests.get(spec.key, []), spec, request)
        for spec in _specs_with(digests, cache_root)
    ]
    differing = [each for each in found if each]
    if not differing:
        return ""
    nearest = min(differing, key=lambda each: (each[0][0] == "backbone", len(each)))
    alike = [each for each in differing if [name for name, *_ in each] == [name for name, *_ in nearest]]
    listed = []
    for at, (name, _, want) in enumerate(nearest):
        there = dict.fromkeys(str(_shown(each[at][1])) for each in alike)
        listed.append(f"another {name} ({' or '.join(there)}; asked: {_shown(want)})")
    of = "" if nearest[0][0] == "backbone" else f" of {request.backbone}"
    return f"There are features{of} with {' and '.join(listed)}, and the two are never mixed."


def ambiguous_caches(request: FeatureRequest, found: Sequence[MatchingCache], cache_root: Path) -> str:
    """Return two sentences on several caches that fit a request: in what they differ, and how to choose one."""
    first, *others = [each.resolved for each in found]
    fields = list(dict.fromkeys(name for other in others for name in first.spec.differences(other.spec)))
    listed = " and ".join(
        f"'{each.cache.folder.name}' ({each.resolved.weights}, {each.resolved.spec.transform.crop} px)"
        for each in found
    )
    ways = []
    if len({each.resolved.weights for each in found}) > 1:
        ways.append("name one with --weights")
    if "transform.crop" in fields:
        ways.append("give its --size")
    ways.append("make the weights available, which tell them apart")
    ways.append(f"move the other folder out of '{cache_root}'")
    return (
        f"{len(found)} caches hold features of {request.backbone} for these images as they were asked for, and differ "
        f"in {', '.join(fields)}: {listed}. To choose one, {', or '.join(ways)}."
    )


def _specs_with(digests: NDArray[np.uint8], cache_root: Path) -> list[FeatureSpec]:
    """The specs of all caches that hold any of these images; damaged ones are passed over."""
    found = []
    try:
        folders = find_caches(cache_root)
    except CacheError:
        return []
    for folder in folders:
        try:
            spec = read_spec(folder)
            if spec is not None and not FeatureCache(cache_root, spec).missing(digests).all():
                found.append(spec)
        except CacheError:
            continue
    return found


def _differences(there: FeatureSpec, asked: FeatureSpec) -> list[Difference]:
    """The fields that differ; where the backbone does, all others do and are left out."""
    names = there.differences(asked)
    if "backbone" in names:
        names = ["backbone"]
    return [(name, _value(there, name), _value(asked, name)) for name in names]


def _least(others: Sequence[FeatureRequest], spec: FeatureSpec, request: FeatureRequest) -> list[Difference]:
    """The fields in which a request differs from the most similar one of these features, or from their spec."""
    if spec.backbone != name_in_spec(request.backbone):
        return [("backbone", spec.backbone, request.backbone)]
    wanted = asdict(with_absolute_path(request))
    del wanted["backbone"]  # the same, wherever its folder is
    candidates = [asdict(other) for other in others if name_in_spec(other.backbone) == spec.backbone]
    if candidates:
        differing = [[(name, each[name], wanted[name]) for name in wanted if each[name] != wanted[name]]
                     for each in candidates]  # fmt: skip
        return min(differing, key=len)
    there_is = {
        **vars(spec.transform),
        **vars(spec),
        "layer": spec.layer.partition(":")[0],
        "size": spec.transform.crop,
    }
    cut = requested_cut(request, spec.transform)
    stands_for = wanted if cut is None else wanted | {"layer": cut[0].partition(":")[0], "pooling": cut[1]}
    return [
        (name, there_is[name], wanted[name])
        for name in wanted
        if name in there_is and stands_for[name] is not None and there_is[name] != stands_for[name]
    ]


def _value(spec: FeatureSpec, name: str) -> object:
    value: object = reduce(getattr, name.split("."), spec)
    return str(value)[:DIGEST_CHARACTERS] if name.endswith("digest") else value


def _shown(value: object) -> object:
    return "the default" if value is None else value
