"""Stand-ins for the classes of plain values that training scripts save next to their weights.

torch's restricted unpickler creates objects of classes on its allow-list only. The classes here are on it under the
names of others (argparse.Namespace, NumPy's scalars, paths, dates), hold nothing and do nothing: no code of the class
that a file names is run, and whatever a file says about such a value is dropped.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

# Values that say nothing about the network: settings, metrics, paths, dates.
DROPPED = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "float16", "float32", "float64", "int32", "int64", "bool_")),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("list", "dict", "int", "float", "str", "bool", "frozenset", "slice")),
    "torch.torch_version.TorchVersion",
    "uuid.UUID",
    "decimal.Decimal",
)
# Dictionaries by another name, which may hold tensors: they are read as dictionaries.
MAPPINGS = (
    "collections.defaultdict",
    *(f"{module}.AttributeDict" for module in (
        "pytorch_lightning.utilities.parsing",
        "lightning.pytorch.utilities.parsing",
        "lightning_fabric.utilities.data",
        "lightning.fabric.utilities.data",
    )),
)  # fmt: skip


class _Dropped:
    """An object without content."""

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> _Dropped:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _Dictionary:
    """A class whose objects are empty dictionaries, which the unpickler fills."""

    def __new__(cls, *_: object) -> dict[Any, Any]:  # type: ignore[misc]  # an object of another class, on purpose
        return {}


def _stand_in(name: str, base: type) -> type:
    """Return a class that the unpickler takes for the one of this name."""
    module, _, own = name.rpartition(".")
    slots = {"__slots__": ()} if base is _Dropped else {}
    return type(own, (base,), {"__module__": module, "__qualname__": own, **slots})


STAND_INS: list[Any] = [
    _stand_in(name, base) for names, base in ((DROPPED, _Dropped), (MAPPINGS, _Dictionary)) for name in names
]


def plain_values_allowed() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which `torch.load(weights_only=True)` reads files with such values too."""
    return torch.serialization.safe_globals(STAND_INS)
