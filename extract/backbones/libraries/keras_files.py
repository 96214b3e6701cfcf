"""Weights in files of Keras, by the names of a network's layers; nothing but arrays of numbers is read.

    .weights.h5, and model.weights.h5 in a .keras archive     layers/conv2d_3/vars/0     a class, counted in a model
    .h5 of earlier versions                                   block2_conv1/block2_conv1/kernel:0, and attributes

A layer is found by its name, or else by its order, since names that Keras makes up differ from file to file. The place
of a layer is the model in the file that has it: empty, or `vgg16` where a model was built around VGG16. Configurations,
and so lambda layers, are never looked at. Links to other files and data sets that other files fill are passed over.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from featurecache.base.errors import WeightsMismatch, WeightsMissing
from featurecache.base.text import printable
from featurecache.extract.backbones.libraries.keras_conversion import Part
from featurecache.extract.backbones.tensor_files import unreadable

MEMBER = "model.weights.h5"
VARIABLES = "vars"
# Groups of Keras 3 that hold layers, and what belongs to training.
CONTAINERS = frozenset({"layers", "_layer_checkpoint_dependencies", "_functional"})
TRAINING = ("optimizer", "optimizer_weights", "compile_metrics", "top_level_model_weights", "seed_generator")
FLOAT_BYTES = (2, 4, 8)


@dataclass(frozen=True)
class _Layer:
    """A layer in a file. key: of files of Keras 3, or empty. arrays: its variables in order."""

    place: str
    name: str
    key: str
    arrays: tuple[h5py.Dataset, ...]


def read_keras_tensors(path: Path, parts: Sequence[Part]) -> tuple[dict[str, Tensor], bool]:
    """Return the tensors of a file by place, layer and name, those of the network's layers as it has them.

    Other tensors, and those of another shape, are on the meta device. The second value is whether the model has the
    layer that Keras adds to an EfficientNet for its published weights. Raises WeightsMismatch, WeightsMissing.
    """
    shown = printable(path.name)
    try:
        with _opened(path) as file:
            layers, is_scaled = _layers_in(file)
            tensors = _tensors_of(layers, parts)
    except WeightsMismatch:
        raise
    except PermissionError as error:
        raise WeightsMissing(unreadable(path, error)) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise WeightsMismatch(f"{shown} is not a weights file of Keras, or is damaged.") from error
    if not tensors:
        raise WeightsMismatch(f"{shown} holds no layers of Keras; save `model.save_weights('NAME.weights.h5')`.")
    return tensors, is_scaled


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file, or the weights in an archive."""
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        entry = next((each for each in archive.infolist() if each.filename == MEMBER), None)
        if entry is None:
            raise WeightsMismatch(f"{printable(path.name)} has no {MEMBER} in it; save `model.save('NAME.keras')`.")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise WeightsMismatch(f"{MEMBER} in {printable(path.name)} is packed, which Keras never does.")
        content = io.BytesIO(archive.read(entry))
    with h5py.File(content, "r") as file:
        yield file


def _layers_in(file: h5py.File) -> tuple[list[_Layer], bool]:
    """Return the layers of a file in the order of its model, and whether it has two layers of rescaling."""
    arrays: dict[str, h5py.Dataset] = {}
    groups: dict[str, h5py.Group] = {}

    def visit(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            arrays[name] = found
        else:
            groups[name] = found

    file.visititems(visit)
    start = "model_weights/" if "model_weights" in groups and not _texts(file, "layer_names") else ""
    root = groups.get(start.rstrip("/"), file)
    if _texts(root, "layer_names"):
        names = _texts(root, "layer_names")
        layers = [layer for name in names for layer in _of_earlier(start, name, groups, arrays)]
        return layers, sum(re.fullmatch(r"rescaling(_\d+)?", name) is not None for name in names) > 1
    layers = _of_keras_3(groups, arrays)
    return layers, any(re.search(r"(^|/)layers/rescaling_1$", name) for name in groups)


def _of_keras_3(groups: Mapping[str, h5py.Group], arrays: Mapping[str, h5py.Dataset]) -> list[_Layer]:
    by_group: dict[str, list[str]] = {}
    for name in arrays:
        parent, _, number = name.rpartition("/")
        if number.isdecimal() and parent.rpartition("/")[2] == VARIABLES:
            by_group.setdefault(parent, []).append(number)
    layers = []
    for group, numbers in by_group.items():
        *above, key = [part for part in group.split("/")[:-1] if part not in CONTAINERS] or [""]
        named = groups[group].attrs.get("name", "")
        values = tuple(arrays[f"{group}/{number}"] for number in sorted(numbers, key=int))
        if not key.startswith(TRAINING) and not any(part.startswith(TRAINING) for part in above):
            layers.append(_Layer(".".join(above), named if isinstance(named, str) else "", key, values))
    return sorted(layers, key=lambda layer: [int(n) if n.isdecimal() else 0 for n in layer.key.rsplit("_", 1)[1:]])


def _of_earlier(
    start: str, name: str, groups: Mapping[str, h5py.Group], arrays: Mapping[str, h5py.Dataset]
) -> list[_Layer]:
    """Return the layers of one entry of a file of an earlier version: itself, or those of a model in it."""
    group = groups.get(start + name)
    if group is None or name.startswith(TRAINING):
        return []
    inner: dict[str, list[h5py.Dataset]] = {}
    for weight in _texts(group, "weight_names"):
        values = arrays.get(f"{start}{name}/{weight}")
        if values is None:
            raise KeyError(weight)
        inner.setdefault("/".join(weight.split("/")[:-1]), []).append(values)
    own = {below for below in inner if below in ("", name) or below.startswith(f"{name}/")}
    if len(inner) <= 1 or own == set(inner):
        values_of = tuple(values for each in inner.values() for values in each)
        return [_Layer("", name, "", values_of)] if values_of else []
    return [_Layer(name, below.rpartition("/")[2], "", tuple(values)) for below, values in inner.items()]


def _texts(group: h5py.Group, name: str) -> list[str]:
    """Return an attribute that is a list of texts, which is in pieces where it is long."""
    pieces = [group.attrs[name]] if name in group.attrs else []
    while f"{name}{len(pieces)}" in group.attrs and name not in group.attrs:
        pieces.append(group.attrs[f"{name}{len(pieces)}"])
    values = [value for piece in pieces for value in np.asarray(piece).ravel().tolist()]
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]


def _tensors_of(layers: Sequence[_Layer], parts: Sequence[Part]) -> dict[str, Tensor]:
    """Return the tensors of all layers, those of a network at every place that has any of it."""
    tensors: dict[str, Tensor] = {}
    for place in dict.fromkeys(layer.place for layer in layers):
        there = [layer for layer in layers if layer.place == place]
        matched = max(_matchings(there, parts), key=lambda each: _n_right(each, parts))
        start = f"{place}." if place else ""
        for part in parts:
            if part.name in matched:
                tensors.update({f"{start}{part.name}.{n}": t for n, t in _of_part(part, matched[part.name]).items()})
        used = {id(layer) for layer in matched.values()}
        for layer in there:
            if id(layer) not in used:
                name = printable(layer.name or layer.key).replace(".", "_")
                tensors.update({f"{start}{name}.{i}": _unread(values) for i, values in enumerate(layer.arrays)})
    return tensors


def _matchings(layers: Sequence[_Layer], parts: Sequence[Part]) -> list[dict[str, _Layer]]:
    """Return the layers of a place by the names of a network's: by name, by the key of Keras 3, and by order."""
    by_name = {re.sub(r"\W", "_", layer.name): layer for layer in layers if layer.name}
    by_key = {layer.key: layer for layer in layers if layer.key}
    in_order = [layer for layer in layers if not layer.key]
    ordered = dict(zip((part.name for part in parts), in_order, strict=False)) if len(in_order) >= len(parts) else {}
    return [
        {part.name: by_name[part.name] for part in parts if part.name in by_name},
        {part.name: by_key[part.key] for part in parts if part.key in by_key},
        ordered,
    ]


def _n_right(matched: Mapping[str, _Layer], parts: Sequence[Part]) -> int:
    """Return how many layers have the variables of the network's layers that they are matched with."""
    return sum(part.name in matched and _is_right(part, matched[part.name]) for part in parts)


def _is_right(part: Part, layer: _Layer) -> bool:
    has_all = len(layer.arrays) >= len(part.slots)
    return has_all and all(a.shape == slot.shape for slot, a in zip(part.slots, layer.arrays, strict=False))


def _of_part(part: Part, layer: _Layer) -> dict[str, Tensor]:
    found: dict[str, Tensor] = dict(part.constants) if _is_right(part, layer) else {}
    for slot, values in zip(part.slots, layer.arrays, strict=False):
        if values.shape == slot.shape and _is_plain(values):
            found[slot.tensor] = slot.read(torch.from_numpy(np.asarray(values[()])))
        else:
            found[slot.tensor] = _unread(values, slot.new_shape if values.shape == slot.shape else None)
    return found


def _is_plain(values: h5py.Dataset) -> bool:
    """Whether a data set holds numbers in this file."""
    has_floats = values.dtype.kind == "f" and values.dtype.itemsize in FLOAT_BYTES
    return has_floats and values.external is None and not values.is_virtual


def _unread(values: h5py.Dataset, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return a tensor of the same shape, or of this one, without values."""
    return torch.empty(
        shape or values.shape or (), dtype=torch.float32 if _is_plain(values) else torch.int64, device="meta"
    )
