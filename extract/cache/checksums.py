"""Checksums of rows: each ties a vector to its image and its spec, beyond HDF5's own.

    seal_i = first 16 bytes of SHA-256(key of the spec, digest_i, bytes of vector_i)

Fletcher-32 covers a chunk of numbers and lets pairs of errors through; it says nothing about whose numbers they are. A
seal does: a flipped bit, a vector at another row, a shard of another cache under the right name, all break it. Rows are
sealed one by one, so that reading a few rows of a large shard checks just these (1280 numbers: 4 us a row).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# 128 bits: an error goes unseen once in 3e38.
SEAL_BYTES = 16


def seal_rows(spec: FeatureSpec, digests: NDArray[np.uint8], features: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The seals (n, 16) of rows: digests (n, 32), features (n, D) as they are kept, in the spec's dtype."""
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
    """SHA-256 in hex over everything a shard tells: by its seals the rows and their order, and the paths."""
    content = hashlib.sha256(seals.tobytes())
    content.update(f"{len(seals)} {paths.dtype.itemsize}".encode())
    content.update(paths.tobytes())
    return content.hexdigest()
