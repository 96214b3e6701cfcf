"""Who is in train, val and test: as given, or by the content of the images.

Without given splits every unit (an image and its copies, or a whole group) is sent to a side by a salted hash of its
identity alone, so adding images moves nobody, and copies or members of one group never stand on two sides.

    u = SHA-256(seed, digest or group name) in [0, 1):     u < test_share -> test,   then val_share -> val,   else train

Only small classes bend the rule. A class that misses a side so, though it has enough units, has its units ordered by u:
the smallest goes to test, the next to val, the largest to train (with two units: test and train). More images of such a
class can therefore move these few.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

import numpy as np

from classify.arrays import AnyArray, FloatArray, IntArray, StrArray
from classify.errors import BadLabels, BadSplit

SPLITS = ("train", "val", "test")
# Bits of the hash that a float64 in [0, 1) holds exactly.
HASH_BITS = 53

Side = tuple[str, float]


def assign_splits(
    digests: AnyArray,
    y: IntArray,
    *,
    given: Sequence[str | None] | None = None,
    groups: Sequence[str | None] | None = None,
    seed: int = 0,
    test_share: float = 0.2,
    val_share: float = 0.16,
    classes: Sequence[str] | None = None,
) -> StrArray:
    """Return 'train', 'val' or 'test' (N,) for each sample.

    digests uint8 (N, 32): SHA-256 of each image; y (N,): class codes. `given` splits are honoured; where they name no
    val (or no test), it is carved out of train by the hash, in the share it would have had. `groups` names samples that
    stay together. `classes` (C,) are the names for error messages.

    Raises BadSplit where only some samples have a split, one has an unknown name, or train has none to spare for test;
    BadLabels for fewer than two classes, for a class with a single image (or unit) to divide, and for a class in val or
    test that train lacks.
    """
    name = _namer(classes)
    _check_classes(y, name)
    units, u = _units(digests, groups, seed)
    found = _check_given(given)
    if {"train", "val", "test"} <= found:
        splits = np.array(given, dtype=str)
    elif found in ({"train", "test"}, {"train", "val"}):
        splits = _carve(np.array(given, dtype=str), y, units, u, test_share, val_share)
        if "test" not in splits:
            raise BadSplit("No image could be put into test: add images, or a test folder.")
    else:
        _check_divisible(y, units, name)
        splits = _divide(y, units, u, [("test", test_share), ("val", test_share + val_share), ("train", 1.0)])
    _check_train_has_all(splits, y, name)
    return splits


def assign_folds(units: AnyArray | Sequence[str], y: IntArray, n_folds: int, *, seed: int = 0) -> IntArray:
    """Return a fold 0..n_folds-1 (N,) for each sample; equal units (N,) share one, classes are dealt out evenly.

    The units of each class are shuffled by the seed and dealt to the folds in turn. Raises BadSplit unless there are at
    least two folds and as many units.
    """
    _, first, unit = np.unique(np.asarray(units), return_index=True, return_inverse=True)
    if not 2 <= n_folds <= len(first):
        raise BadSplit(f"{n_folds} folds of {len(first)} distinct samples: give at least 2 folds and at most one each.")
    shuffled = np.random.default_rng(seed).permutation(len(first))
    dealt = shuffled[np.argsort(np.asarray(y)[first[shuffled]], kind="stable")]
    fold = np.empty(len(first), dtype=np.int64)
    fold[dealt] = np.arange(len(first)) % n_folds
    return fold[unit]


def _namer(classes: Sequence[str] | None) -> Callable[[int], str]:
    return lambda code: repr(str(classes[code])) if classes is not None else str(code)


def _check_classes(y: IntArray, name: Callable[[int], str]) -> None:
    found = np.unique(y)
    if len(found) < 2:
        only = f"only the class {name(int(found[0]))} was found" if len(found) else "no sample was found"
        raise BadLabels(f"A head tells classes apart, but {only}: give images of at least two classes.")


def _check_given(given: Sequence[str | None] | None) -> set[str]:
    """Return the names of the given splits, none where they say nothing; raises BadSplit where they say half."""
    if given is None or all(split is None for split in given):
        return set()
    missing = sum(split is None for split in given)
    if missing:
        raise BadSplit(
            f"{missing} of {len(given)} samples have no split: give every sample train, val or test, or none."
        )
    found = {str(split) for split in given}
    unknown = sorted(found - set(SPLITS))
    if unknown:
        raise BadSplit(f"The split {unknown[0]!r} is unknown: the splits are train, val and test.")
    if "train" not in found:
        raise BadSplit(f"The samples are all in {' and '.join(sorted(found))}: put some in train, or give no splits.")
    return found


def _units(digests: AnyArray, groups: Sequence[str | None] | None, seed: int) -> tuple[IntArray, FloatArray]:
    """Return the unit (N,) of each sample, 0..U-1, and the hash u (U,) of each unit.

    A unit is what copies and groups tie together: copies of one image that stand in two groups make them one unit,
    known by the group name with the smallest hash.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    image_keys = [b"image:" + row.tobytes() for row in np.ascontiguousarray(digests, dtype=np.uint8)]
    named: Sequence[str | None] = groups if groups is not None else [None] * len(image_keys)
    keys = [
        image if group is None else b"group:" + group.encode() for image, group in zip(image_keys, named, strict=True)
    ]
    nodes = {key: node for node, key in enumerate(dict.fromkeys(image_keys + keys))}
    ends = [nodes[key] for key in image_keys], [nodes[key] for key in keys]
    graph = coo_array((np.ones(len(keys)), ends), shape=(len(nodes), len(nodes)))
    n_units, unit_of_node = connected_components(graph, directed=False)
    units = unit_of_node[ends[0]]
    u = np.full(n_units, np.inf)
    grouped = {unit for unit, group in zip(units.tolist(), named, strict=True) if group is not None}
    for key, unit in zip(keys, units.tolist(), strict=True):
        if key.startswith(b"group:") or unit not in grouped:
            u[unit] = min(u[unit], _hash(key, seed))
    return units, u


def _hash(key: bytes, seed: int) -> float:
    digest = sha256(f"{seed}:".encode() + key).digest()
    return float((int.from_bytes(digest[:8], "big") >> (64 - HASH_BITS)) / 2**HASH_BITS)


def _divide(y: IntArray, units: IntArray, u: FloatArray, sides: Sequence[Side]) -> StrArray:
    """Send units (N,) with hash u (U,) to the first side whose upper end is above u, then mend the small classes."""
    ends = np.array([end for _, end in sides])
    side = np.minimum(np.searchsorted(ends, u, side="right"), len(sides) - 1)
    for code in np.unique(y):
        own = np.unique(units[y == code])
        if len(set(side[own])) < len(sides):
            _mend(side, own[np.argsort(u[own], kind="stable")], len(sides))
    return np.array([name for name, _ in sides])[side[units]]


def _mend(side: IntArray, ordered: IntArray, n_sides: int) -> None:
    """Give a class, its units ordered by u, a member on each side as far as they go, train before the others."""
    last = n_sides - 1
    side[ordered[-1]] = last
    for place, unit in enumerate(ordered[: min(last, len(ordered) - 1)]):
        side[unit] = place


def _carve(
    given: StrArray, y: IntArray, units: IntArray, u: FloatArray, test_share: float, val_share: float
) -> StrArray:
    """Take the missing val (or test) out of the given train, in the share it has of what is not the other."""
    wanted, share = (
        ("val", val_share / (1.0 - test_share)) if "test" in given else ("test", test_share / (1.0 - val_share))
    )
    carved, train = given.copy(), given == "train"
    carved[train] = _divide(y[train], units[train], u, [(wanted, share), ("train", 1.0)])
    return carved


def _check_divisible(y: IntArray, units: IntArray, name: Callable[[int], str]) -> None:
    for code, n_images in zip(*np.unique(y, return_counts=True), strict=True):
        if n_images == 1:
            raise BadLabels(
                f"The class {name(int(code))} has a single image, which cannot be in both train and test: "
                "add images of it or leave the class out."
            )
        if len(np.unique(units[y == code])) == 1:
            raise BadLabels(
                f"All {n_images} images of the class {name(int(code))} are copies of one or share a group, so they "
                "cannot be in both train and test: add images of it or leave the class out."
            )


def _check_train_has_all(splits: StrArray, y: IntArray, name: Callable[[int], str]) -> None:
    for split in ("test", "val"):
        absent = np.setdiff1d(y[splits == split], y[splits == "train"])
        if len(absent):
            raise BadLabels(
                f"The class {name(int(absent[0]))} is in {split} but not in train: "
                "add training images of it or leave the class out."
            )
