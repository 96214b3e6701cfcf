"""Reading of untrusted tensor files: .safetensors, or .pth without running code from it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from featurecache.base.errors import WeightsMismatch, WeightsMissing
from featurecache.base.plain_files import check_is_stored
from featurecache.base.text import printable
from featurecache.extract.backbones.pixels import OWN_FILE
from featurecache.extract.backbones.plain_classes import plain_values_allowed

# Dictionaries and lists in one another, of which no training script writes as many.
DEEPEST = 16
HDF5_START = b"\x89HDF\r\n\x1a\n"  # its first bytes
N_NAMED = 6  # keys in an error message


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file or of a file saved by torch, by full name.

    The keys of the dictionaries around a tensor are part of its full name: `state_dict.conv1.weight`. Anything that is
    not a plain tensor is passed over. Returns none for the file that `pixels` has as its weights.

    Raises WeightsMismatch if the file holds no tensors, or if reading it would run code.
    """
    if path == OWN_FILE:
        return {}
    shown = printable(path.name)
    try:
        _check_is_not_hdf5(path)
        content = load_file(path) if path.suffix == ".safetensors" else _load_pickled_tensors(path)
    except pickle.UnpicklingError as error:
        raise WeightsMismatch(
            f"{shown} is not a plain state dict: reading it would run code from the file, which is refused. "
            f"Save `model.state_dict()` with torch.save, or as .safetensors"
        ) from error
    except OSError as error:
        raise WeightsMissing(unreadable(path, error)) from error
    except (MemoryError, WeightsMismatch):
        raise
    except Exception as error:
        # A file of another format can raise any exception in its reader.
        if "TorchScript" in str(error):
            raise WeightsMismatch(
                f"{shown} is a TorchScript program, which is not run; save `model.state_dict()` of the model instead"
            ) from error
        raise WeightsMismatch(
            f"{shown} is not a weights file, or is damaged; a .safetensors file or a state dict saved by torch is"
        ) from error
    found: dict[str, Tensor] = {}
    for name, tensor in _tensors_in(content, "", set(), DEEPEST):
        if name in found:
            raise WeightsMismatch(f"{shown} holds two tensors called '{printable(name)}'; save `model.state_dict()`")
        found[name] = tensor
    if not found:
        raise WeightsMismatch(f"{shown} holds no state dict{_keys(content)}; save `model.state_dict()` instead")
    return found


def unreadable(path: Path, error: OSError) -> str:
    """Return the error message for a weights file that the system does not allow to be read."""
    return f"{path} cannot be read: {error.strerror or error}; correct its permissions, or name another with --weights"


def _check_is_not_hdf5(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(HDF5_START)) != HDF5_START:
            return
    raise WeightsMismatch(
        f"{printable(path.name)} is an HDF5 file, as Keras saves weights, and only its networks are filled from one: "
        "choose a backbone of `featurecache backbones keras/`, or save `model.state_dict()` with torch.save"
    )


def _load_pickled_tensors(path: Path) -> Any:
    with warnings.catch_warnings(), plain_values_allowed():
        warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; an unreadable file raises an error
        check_is_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors_in(content: Any, place: str, seen: set[int], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the plain tensors with their full names, in the order of the file; a dictionary that recurs once."""
    if depth == 0 or id(content) in seen or not isinstance(content, Mapping | list | tuple):
        return
    seen.add(id(content))
    has_names = isinstance(content, Mapping)
    entries: Iterable[tuple[Any, Any]] = content.items() if isinstance(content, Mapping) else enumerate(content)
    for name, value in entries:
        full = f"{place}.{name}" if place else str(name)
        if has_names and not isinstance(name, str):
            continue
        if has_names and _is_plain(value):
            yield full, value
        else:
            yield from _tensors_in(value, full, seen, depth - 1)


def _is_plain(value: object) -> bool:
    """Whether this is a plain tensor: not sparse, not quantised, not larger than what is stored of it."""
    if not isinstance(value, Tensor):
        return False
    is_plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    return is_plain and value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def _keys(content: Any) -> str:
    """Return a clause with the first keys of a file's dictionary."""
    if not isinstance(content, Mapping) or not content:
        return ""
    more = ", ..." if len(content) > N_NAMED else ""
    return f" (its keys: {', '.join(printable(str(key)) for key in list(content)[:N_NAMED])}{more})"
