"""Reading of untrusted tensor files: .safetensors, or .pth without running code from it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from featurecache.base.errors import WeightsMismatch, WeightsMissing
from featurecache.base.plain_files import check_is_stored
from featurecache.extract.backbones.pixels import OWN_FILE

WRAPPERS = ("state_dict", "model")  # keys under which training scripts, torchvision's too, save a state dict


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file or of a state dict saved by torch, by name, prefixes removed.

    Returns none for the file that `pixels` has as its weights.

    Raises WeightsMismatch if the file holds anything but tensors, or if reading it would run code.
    """
    if path == OWN_FILE:
        return {}
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_pickled_tensors(path)
    except pickle.UnpicklingError as error:
        raise WeightsMismatch(
            f"{path.name} is not a plain state dict: reading it would run code from the file, which is refused. "
            f"Save `model.state_dict()` with torch.save, or as .safetensors"
        ) from error
    except OSError as error:
        raise WeightsMissing(unreadable(path, error)) from error
    except MemoryError:
        raise
    except Exception as error:
        # A file of another format can raise any exception in its reader.
        raise WeightsMismatch(
            f"{path.name} is not a weights file, or is damaged; a .safetensors file or a state dict saved by torch is"
        ) from error
    return plain_names(_unwrap(content, path.name))


def unreadable(path: Path, error: OSError) -> str:
    """Return the error message for a weights file that the system does not allow to be read."""
    return f"{path} cannot be read: {error.strerror or error}; correct its permissions, or name another with --weights"


def _load_pickled_tensors(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; an unreadable file raises an error
        check_is_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrap(content: Any, file_name: str) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(_is_entry, content, content.values())):
        raise WeightsMismatch(f"{file_name} holds no state dict; save `model.state_dict()` instead")
    return dict(content)


def _is_entry(name: object, value: object) -> bool:
    """Whether this is a name and a plain tensor: not sparse, not quantised, not larger than what is stored of it."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    is_plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    return is_plain and value.untyped_storage().nbytes() >= value.numel() * value.element_size()


PREFIXES = ("module.", "_orig_mod.")  # added to every name by DataParallel and torch.compile


def plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under their names without the prefixes of wrappers."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
