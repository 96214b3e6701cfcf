"""Features of several backbones next to each other, each block divided by its own scale.

    x = (x_a / s_a, x_b / s_b, ...)        s = sqrt(mean of |x|^2 over the training samples)

so that in distances and penalties no block outweighs another for having more or larger numbers. The scales are a
record of the head: new samples are divided by the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featurecache.extract.cache.spec import MOST_IN_A_NAME, FeatureSpec, slug
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.vectors.origin import NO_TRANSFORM
from featurecache.extract.job.request import FeatureRequest, Resolved
from featurecache.features.feature_set import Part, Source
from featurecache.runs.command_lines import JOINT

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The source in the spec of joined features, which has no transform of its own.
JOINED_SOURCE = "joined"
# Rows whose squares are summed at a time.
BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Joined:
    """The features of several sources, side by side; scales: what the numbers of each are divided by."""

    spec: FeatureSpec
    sources: tuple[Source, ...]
    scales: tuple[float, ...]

    @classmethod
    def of(cls, parts: Sequence[Part], sources: Sequence[Source]) -> Joined:
        """Return the sources of these parts as one."""
        spec = joined_spec([part.spec for part in parts])
        return cls(spec, tuple(sources), tuple(part.scale for part in parts))

    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the digests (N, 32) have no features in one of the sources: bool (N,)."""
        absent = np.zeros(len(digests), dtype=bool)
        for source in self.sources:
            absent |= source.missing(digests)
        return absent

    def stored_order(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the positions of these digests (N, 32) in the order of the first source."""
        return self.sources[0].stored_order(digests)

    def lookup(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the scaled features of these digests side by side: (N, 32) -> float32 (N, D). Raises CacheError."""
        return side_by_side([source.lookup(digests) for source in self.sources], self.scales)


def side_by_side(blocks: Sequence[NDArray[np.float32]], scales: Sequence[float]) -> NDArray[np.float32]:
    """Return blocks (N, D_i), each divided by its scale, side by side: float32 (N, D)."""
    return np.concatenate([block / np.float32(scale) for block, scale in zip(blocks, scales, strict=True)], axis=1)


def joined_spec(specs: Sequence[FeatureSpec]) -> FeatureSpec:
    """Return the identity of joined features: the keys of the parts, in their order."""
    name = JOINT.join(spec.backbone for spec in specs)
    if len(name) > MOST_IN_A_NAME:
        name = slug(name)
    digest = hashlib.sha256(json.dumps([spec.key for spec in specs]).encode()).hexdigest()
    dim = sum(spec.feature_dim for spec in specs)
    return FeatureSpec(name, JOINED_SOURCE, digest, "", "", NO_TRANSFORM, dim, decode_version=1)


def joined_caches(
    caches: Sequence[tuple[Resolved, FeatureCache]],
) -> tuple[Resolved, Source, tuple[FeatureSpec, ...]]:
    """Return the features of several caches as one, as they are, and the spec of each; of one cache those alone."""
    if len(caches) == 1:
        return (*caches[0], ())
    specs = tuple(resolved.spec for resolved, _ in caches)
    whole = replace(joined_spec(specs), dtype=specs[0].dtype)
    weights = " + ".join(resolved.weights for resolved, _ in caches)
    return Resolved(whole, weights), Joined(whole, tuple(cache for _, cache in caches), (1.0,) * len(caches)), specs


def look_up_together(
    caches: Sequence[tuple[FeatureRequest, FeatureCache]], digests: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return the features of these digests from several caches side by side, scaled by them: (N, 32) -> (N, D).

    Those of one cache as they are. Raises CacheError.
    """
    if len(caches) == 1:
        return caches[0][1].lookup(digests)
    parts = [Part(request, cache.spec, scale_of(cache, digests)) for request, cache in caches]
    return Joined.of(parts, [cache for _, cache in caches]).lookup(digests)


def joined_rate(rates: Sequence[float]) -> float:
    """Return how many samples a second get all of their parts, one after the other; 0 where a rate is not known."""
    return round(1 / sum(1 / rate for rate in rates), 2) if all(rates) else 0.0


def scale_of(source: Source, digests: NDArray[np.uint8]) -> float:
    """Return the root mean square norm of the features of these digests (N, 32); 1 where all are zero."""
    total, order = 0.0, source.stored_order(digests)
    for start in range(0, len(order), BLOCK):
        X = source.lookup(digests[order[start : start + BLOCK]])
        total += float(np.einsum("nd,nd->", X, X, dtype=np.float64))
    return math.sqrt(total / max(1, len(order))) or 1.0
