"""Seals: checksums of rows that bind a vector to its image and its spec.

    seal_i = first 16 bytes of SHA-256(key of the spec, digest_i, bytes of vector_i)

HDF5's Fletcher-32 covers a chunk of numbers, misses some pairs of errors and does not depend on the image. A seal
detects all of these: a flipped bit, a vector at another row, a shard of another cache under the right name. Each row
has its own seal, so that reading a few rows of a large shard checks only these (1280 numbers: 4 us a row).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# 128 bits: an error is missed once in 3e38.
SEAL_BYTES = 16


def seal_rows(spec: FeatureSpec, digests: NDArray[np.uint8], features: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return the seals (n, 16) of rows: digests (n, 32), features (n, D), which are cast to the spec's dtype."""
    keyed = hashlib.sha256(spec.key.encode())
    kept = np.ascontiguousarray(features, dtype=np.dtype(spec.dtype).newbyteorder("<"))
    names = np.ascontiguousarray(digests)
    seals = bytearray()
    for digest, vector in zip(names, kept, strict=True):
        row = keyed.copy()
        row.update(digest.data)
        row.update(vector.data)
        seals += row.digest()[:SEAL_BYTES]
    return np.frombuffer(bytes(seals), dtype=np.uint8).reshape(-1, SEAL_BYTES)


def content_digest(seals: NDArray[np.uint8], paths: NDArray[Any]) -> str:
    """Return the SHA-256 in hex of a shard's content: its seals, which cover rows and their order, and its paths."""
    content = hashlib.sha256(seals.tobytes())
    content.update(f"{len(seals)} {paths.dtype.itemsize}".encode())
    content.update(paths.tobytes())
    return content.hexdigest()
