"""Tables of the learned values of heads, one a head: a head from a file is checked against its table.

learned: ClassVar[Learned] = {**FITTED, "coef_": Array("C", "D"), "codes_": Array("N", kind="iu", below="C")}

Letters are sizes: C classes and D columns, which every head has, P as its `learned_sizes` says, and any other letter is
the size at its first occurrence. Numbers are finite, unless the head is marked as not converged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray
from featurecache.classify.heads.shared.parameters import Choice, Range, check_class_weight, check_parameters

# Rows that are checked together.
BLOCK = 4096


@dataclass(frozen=True, init=False)
class Array:
    """An array of numbers, its size in letters: of kind "f" (numpy's letters); below: whole numbers from 0 to below C.

    least: the least that a number may be.
    """

    shape: tuple[str, ...]
    kind: str
    below: str
    least: float

    def __init__(self, *shape: str, kind: str = "f", below: str = "", least: float = -np.inf) -> None:
        for name, value in (("shape", shape), ("kind", kind), ("below", below), ("least", least)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Labels:
    """An array (size,) of labels, numbers or text; of classes each once, in order."""

    size: str
    in_order: bool = False


class Flag:
    """True or false."""


class Text:
    """A sentence, or nothing."""


Learned = Mapping[str, Array | Labels | Range | Choice | Flag | Text]
COLUMNS = Range("a whole number from 1 to 10 million", least=1.0, most=1e7, whole=True)
FITTED: Learned = {"n_features_in_": COLUMNS, "classes_": Labels("C", in_order=True), "converged_": Flag()}
COUNTED = Range("0 or more, a whole number", least=0.0, whole=True)
SLOPE = Range("0 or more, or None", least=0.0, optional=True)
# A note, the names of columns where X was a table, and the gap to the optimum, which the first heads of format 1 lack:
# none is needed for predictions.
OPTIONAL_LEARNED: Learned = {"note_": Text(), "feature_names_in_": Labels("D"), "gap_": SLOPE}


def check_fitted(head: Any) -> None:
    """Raise ValueError for the first parameter or learned value of a head that no fit could produce.

    The message names it: missing, not learned by this kind of head, or of another type, shape or range.
    """
    check_parameters(head)
    _check_common_parameters(head)
    declared = {**OPTIONAL_LEARNED, **head.learned}
    found = {name: value for name, value in vars(head).items() if name.endswith("_")}
    for name in found:
        if name not in declared:
            raise ValueError(f"'{name}' is not a learned value of {type(head).__name__}")
    for name in head.learned:
        if name not in found:
            raise ValueError(f"{name} is missing")
    _check_value("n_features_in_", found["n_features_in_"], COLUMNS, {}, is_finite=True)
    _check_labels("classes_", found["classes_"], in_order=True)
    sizes = {"C": len(found["classes_"]), "D": int(found["n_features_in_"])}
    sizes |= head.learned_sizes() if hasattr(head, "learned_sizes") else {}
    is_finite = found["converged_"] is not False
    for name, value in found.items():
        _check_value(name, value, declared[name], sizes, is_finite=is_finite)


def _check_common_parameters(head: Any) -> None:
    """Check parameters of saved heads that the tables `allowed` leave out: class weights, seeds and devices."""
    weight, seed, device = (getattr(head, name, None) for name in ("class_weight", "random_state", "device"))
    if isinstance(weight, Mapping):
        check_class_weight(weight)
    elif weight is not None and weight != "balanced":
        raise ValueError(f"class_weight={weight!r} is unknown")
    if not (seed is None or type(seed) is int):
        raise ValueError(f"random_state={seed!r} is no whole number")
    if not (device is None or isinstance(device, str)):
        raise ValueError(f"device={device!r} is unknown")


def _check_value(name: str, value: Any, declared: Any, sizes: dict[str, int], *, is_finite: bool) -> None:
    if isinstance(declared, Array):
        _check_numbers(name, value, declared, sizes, is_finite=is_finite)
    elif isinstance(declared, Labels):
        _check_labels(name, value, in_order=declared.in_order)
        if len(value) != sizes[declared.size]:
            raise ValueError(f"{name} has {len(value)} labels for {declared.size} = {sizes[declared.size]}")
    elif isinstance(declared, Flag | Text):
        if not isinstance(value, bool if isinstance(declared, Flag) else str):
            raise ValueError(f"{name} has the unexpected type {type(value).__name__}")
    elif not declared.holds(value):
        raise ValueError(declared.refusal(name, value).rstrip("."))


def _check_numbers(name: str, value: Any, declared: Array, sizes: dict[str, int], *, is_finite: bool) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in declared.kind:
        raise ValueError(f"{name} has the unexpected type {getattr(value, 'dtype', type(value).__name__)}")
    if value.ndim == len(declared.shape):
        for letter, size in zip(declared.shape, value.shape, strict=True):
            sizes.setdefault(letter, size)
    if value.size == 0:
        raise ValueError(f"{name} has shape {value.shape}, which holds nothing")
    wanted = tuple(sizes.get(letter, 0) for letter in declared.shape)
    if value.shape != wanted:
        raise ValueError(f"{name} has shape {value.shape}, where ({', '.join(declared.shape)}) is {wanted}")
    most = sizes[declared.below] - 1 if declared.below else np.inf
    least = 0.0 if declared.below else declared.least
    for block in pieces(value):
        if is_finite and not np.isfinite(block).all():
            raise ValueError(f"{name} has numbers that are not finite")
        if (block < least).any() or (block > most).any():
            raise ValueError(f"{name} has numbers that are not from {least:g} to {most:g}")


def pieces(value: AnyArray) -> Iterator[AnyArray]:
    """Yield an array in pieces, so that nothing as large as the whole is made of a large one."""
    rows = np.atleast_1d(value)
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def _check_labels(name: str, value: Any, *, in_order: bool) -> None:
    is_known = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "biufUO"
    if not is_known or not all(isinstance(each, str | int | float) for each in value.tolist()):
        raise ValueError(f"{name} holds values that are not labels")
    if in_order and (len(value) < 2 or not bool((value[1:] > value[:-1]).all())):
        raise ValueError(f"{name} are not two classes or more, each once and in order")
