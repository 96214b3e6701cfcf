"""Splits into train, val and test: as given, or by the content of the images.

Without given splits every unit (an image and its copies, or a whole group) is sent to a side by a salted hash of its
identity alone, so adding images moves no other image, and copies or members of one group are never on two sides.

    u = SHA-256(seed, digest or group name) in [0, 1):     u < test_share -> test,   then val_share -> val,   else train

Only small classes bend the rule. A class that misses a side so, though it has enough units, has its units ordered by u:
the smallest goes to test, the next to val, the largest to train (with two units: test and train). More images of such a
class can therefore move these few. Where groups hold several classes, `classify.selection.dividing` searches for an
assignment that serves all classes.
"""

from collections.abc import Callable, Sequence

import numpy as np

from featurecache.base.defaults import SPLITS
from featurecache.base.errors import BadLabels, BadSplit
from featurecache.classify.arrays.array_types import AnyArray, FloatArray, IntArray, StrArray
from featurecache.classify.evaluation.units import count_units, unit_hashes, units_of
from featurecache.classify.selection.dividing import divide_units

# Names of classes in a message; a data set of 1,000 classes must not fill the screen.
MAX_NAMED = 20

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
    BadLabels for fewer than two classes, for classes with a single image (or unit) to divide, and for classes in val or
    test that train lacks; it names them all.
    """
    name = _namer(classes)
    _check_classes(y, name)
    units = units_of(digests, groups)
    u = unit_hashes(units, digests, groups, seed=seed)
    found = _check_given(given)
    if set(SPLITS) <= found:
        splits = np.array(given, dtype=str)
    elif found in ({"train", "test"}, {"train", "val"}):
        splits = _carve(np.array(given, dtype=str), y, units, u, test_share, val_share)
        if "test" not in splits:
            raise BadSplit("No image could be put into test: add images, or a test folder.")
    else:
        _check_divisible(y, units, name)
        splits = _divide(y, units, u, [("test", test_share), ("val", test_share + val_share), ("train", 1.0)])
        if "test" not in splits:
            raise BadSplit("No group can be put into test: each holds a class that no other has. Add images or groups.")
    _check_train_has_all(splits, y, name)
    return splits


def assign_folds(units: AnyArray | Sequence[str], y: IntArray, n_folds: int, *, seed: int = 0) -> IntArray:
    """Return a fold 0..n_folds-1 (N,) for each sample; equal units (N,) share one, classes are dealt out evenly.

    The units are shuffled by the seed, put in the order of their classes, and dealt to the folds, the largest first.
    With n_fc the rows of class c in fold f and g_c those in the unit, it goes to the fold with the least

        sum_c n_fc g_c / n_c,    then the fewest rows,    then the lowest number

    which is that of the least sum of squares of n_fc / n_c. Units of one row each are dealt to the folds in turn.
    Raises BadSplit unless there are at least two folds and as many units.
    """
    _, first, unit = np.unique(np.asarray(units), return_index=True, return_inverse=True)
    if not 2 <= n_folds <= len(first):
        raise BadSplit(f"{n_folds} folds of {len(first)} distinct samples: give at least 2 folds and at most one each.")
    shuffled = np.random.default_rng(seed).permutation(len(first))
    dealt = shuffled[np.argsort(np.asarray(y)[first[shuffled]], kind="stable")]
    fold = np.empty(len(first), dtype=np.int64)
    if len(first) == len(unit):
        fold[dealt] = np.arange(len(first)) % n_folds
        return fold[unit]
    _deal_by_size(fold, dealt, unit, np.unique(y, return_inverse=True)[1].ravel(), n_folds)
    return fold[unit]


def _deal_by_size(fold: IntArray, dealt: IntArray, unit: IntArray, codes: IntArray, n_folds: int) -> None:
    """Fill fold (U,): deal the units, those of `dealt` (U,), by size; unit, codes (N,): of each row."""
    sizes = np.bincount(unit)
    order = dealt[np.argsort(-sizes[dealt], kind="stable")]
    rows = np.split(np.argsort(unit, kind="stable"), np.cumsum(sizes)[:-1])
    n_of = np.bincount(codes)
    in_fold, n_rows = np.zeros((n_folds, len(n_of))), np.zeros(n_folds)
    for each in order.tolist():
        own, n_own = np.unique(codes[rows[each]], return_counts=True)
        crowded = in_fold[:, own] @ (n_own / n_of[own])
        best = int(np.lexsort((n_rows, np.round(crowded, 9)))[0])
        fold[each] = best
        in_fold[best, own] += n_own
        n_rows[best] += len(rows[each])


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


def _divide(y: IntArray, units: IntArray, u: FloatArray, sides: Sequence[Side]) -> StrArray:
    """Return the side (N,) of each sample; sides: names and upper ends of the hash u (U,) of the units (N,)."""
    present, unit = np.unique(units, return_inverse=True)
    side = divide_units(y, unit.ravel(), u[present], [end for _, end in sides])
    return np.array([name for name, _ in sides])[side[unit.ravel()]]


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
    """Raise BadLabels that names every class whose images are one unit: it cannot be in both train and test."""
    n_images = np.bincount(y)
    n_units = count_units(units, y, len(n_images))
    stuck = np.flatnonzero(n_units == 1)
    if not len(stuck):
        return
    named = [f"{name(int(c))} ({_images(int(n_images[c]))})" for c in stuck[:MAX_NAMED]]
    named += [f"{len(stuck) - MAX_NAMED:,} more"] if len(stuck) > MAX_NAMED else []
    one = len(stuck) == 1
    raise BadLabels(
        f"{'This class has' if one else f'These {len(stuck):,} classes have'} one image only, counting copies and "
        f"members of a group once, which cannot be in both train and test: {', '.join(named)}. Add images of "
        f"{'it' if one else 'them'}, or leave {'the class' if one else 'the classes'} out with --min-per-class 2."
    )


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n:,} images"


def _check_train_has_all(splits: StrArray, y: IntArray, name: Callable[[int], str]) -> None:
    """Raise BadLabels that names every class of test, or of val, that train lacks; only given splits can have one."""
    for split in ("test", "val"):
        absent = np.setdiff1d(y[splits == split], y[splits == "train"])
        if len(absent):
            named = [name(int(code)) for code in absent[:MAX_NAMED]]
            named += [f"{len(absent) - MAX_NAMED:,} more"] if len(absent) > MAX_NAMED else []
            what, them = ("class", "it") if len(absent) == 1 else ("classes", "them")
            raise BadLabels(
                f"The {what} {', '.join(named)} {'is' if len(absent) == 1 else 'are'} in {split} but not in train: "
                f"add training images of {them} or leave {'the class' if len(absent) == 1 else 'them'} out."
            )
