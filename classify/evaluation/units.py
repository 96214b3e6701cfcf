"""Units: images that must stay together, since copies and images of one group are not independent.

Copies and groups connect samples into the components of a graph: a copy of an image of group a that is in group b
makes one unit of both groups. Splits, folds, draws of few labels, intervals and tests all take these units.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, FloatArray, IntArray

# Bits of the hash that a float64 in [0, 1) holds exactly.
HASH_BITS = 53


def units_of(digests: AnyArray, groups: Sequence[str | None] | None = None) -> IntArray:
    """Return the unit (N,) of each sample, 0..U-1: copies of one image and members of one group share a unit.

    digests uint8 (N, 32): SHA-256 of each image; groups (N,): the name of each sample's group, None for no group. Units
    are numbered in the order of their smallest name, a group or a digest in hexadecimal, whatever the order of samples.
    """
    if groups is None or list(groups) == [None] * len(digests):
        rows = np.ascontiguousarray(digests, dtype=np.uint8)
        return np.unique(rows.view(f"S{rows.shape[1]}"), return_inverse=True)[1].ravel()
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    images, keys = _keys(digests, groups)
    nodes = {key: node for node, key in enumerate(dict.fromkeys(images + keys))}
    ends = [nodes[key] for key in images], [nodes[key] for key in keys]
    graph = coo_array((np.ones(len(keys)), ends), shape=(len(nodes), len(nodes)))
    _, unit_of_node = connected_components(graph, directed=False)
    found: list[int] = unit_of_node[ends[0]].tolist()
    names = [_name(key) for key in keys]
    number = {
        unit: place
        for place, unit in enumerate(dict.fromkeys(unit for _, unit in sorted(zip(names, found, strict=True))))
    }
    return np.array([number[unit] for unit in found], dtype=np.int64)


def unit_hashes(
    units: IntArray, digests: AnyArray, groups: Sequence[str | None] | None = None, *, seed: int = 0
) -> FloatArray:
    """Return u (U,) in [0, 1) of each unit of `units_of`, (N,): the smallest SHA-256 of the seed and a member's name.

    A unit with a group is known by the names of its groups alone, so that images added to a group do not move it.
    """
    _, keys = _keys(digests, groups)
    u = np.full(int(units.max(initial=-1)) + 1, np.inf)
    grouped = {unit for unit, key in zip(units.tolist(), keys, strict=True) if key.startswith(b"group:")}
    for key, unit in zip(keys, units.tolist(), strict=True):
        if key.startswith(b"group:") or unit not in grouped:
            u[unit] = min(u[unit], _hash(key, seed))
    return u


def count_units(units: IntArray, y: IntArray, n_classes: int) -> IntArray:
    """Return the number of units (C,) that each class 0..C-1 has images in, from units (N,) and codes y (N,)."""
    return np.bincount(class_units(units, y)[0], minlength=n_classes)


def class_units(units: IntArray, y: IntArray) -> tuple[IntArray, IntArray]:
    """Return every pair of a class and a unit that has images of it once, (P,) each, in the order of the classes."""
    n_units = int(np.max(units, initial=0)) + 1
    pairs = np.unique(np.asarray(y, dtype=np.int64) * n_units + units)
    return pairs // n_units, pairs % n_units


def _keys(digests: AnyArray, groups: Sequence[str | None] | None) -> tuple[list[bytes], list[bytes]]:
    """Return the key of each image, and the key by which its split goes: that of its group where it has one."""
    images = [b"image:" + row.tobytes() for row in np.ascontiguousarray(digests, dtype=np.uint8)]
    named: Sequence[str | None] = groups if groups is not None else [None] * len(images)
    keys = [image if group is None else b"group:" + group.encode() for image, group in zip(images, named, strict=True)]
    return images, keys


def _name(key: bytes) -> str:
    kind, name = key.split(b":", 1)
    return name.decode() if kind == b"group" else name.hex()


def _hash(key: bytes, seed: int) -> float:
    digest = sha256(f"{seed}:".encode() + key).digest()
    return float((int.from_bytes(digest[:8], "big") >> (64 - HASH_BITS)) / 2**HASH_BITS)
