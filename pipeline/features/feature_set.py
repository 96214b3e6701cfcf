"""One kind of features of a data set as an array, and their sources: a cache, a file of vectors, several joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.job.request import FeatureRequest, Resolved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Source(Protocol):
    """Where features are looked up by the digest of a sample: a FeatureCache, Vectors of a file, Joined ones."""

    @property
    def spec(self) -> FeatureSpec:
        """The identity of the features."""

    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the digests (N, 32) have no features: bool (N,)."""

    def stored_order(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the positions 0..N-1 of these digests in the order in which they are read fastest."""

    def lookup(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of these digests: (N, 32) -> float32 (N, D). Raises CacheError."""


@dataclass(frozen=True)
class Part:
    """One of several kinds of features that are joined; scale: what its numbers are divided by."""

    request: FeatureRequest
    spec: FeatureSpec
    scale: float


@dataclass(frozen=True)
class Features:
    """One set of features: X (N, D) float32, row i for sample i, and what they cost.

    name: that of the backbone, with the layer behind it where a backbone gives several. note: on rows to compute again.
    parts: of several backbones that are joined; empty for one.
    """

    name: str
    request: FeatureRequest
    resolved: Resolved
    X: NDArray[np.float32]
    extract_seconds: float
    images_per_second: float
    note: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """The identity of the features, or of each of those that are joined."""
        return tuple(part.spec for part in self.parts) or (self.resolved.spec,)
