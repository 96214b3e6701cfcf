"""A backbone: a frozen pretrained network without its last layer, loaded together with its transform.

One mechanism serves every network. torchvision's graph extraction (`torchvision.models.feature_extraction`) cuts the
network at one node; normalisation goes before it, pooling behind it, and the three are one module:

    uint8 (B, 3, S, S) -> (x / 255 - mean) / std -> network up to the node -> pooling -> float32 (B, D)

Node names are torchvision's, read on the network without its last layer: where the layer was, its input is handed on.
So `--layer classifier` of vgg16 is what the last layer would have seen, 4096 numbers.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from extract.architectures import (
    LITE_SIZES,
    N_NEIGHBOURS,
    PROBE_ROWS,
    Family,
    Network,
    build_network,
    check_name,
    network_names,
    output_on_meta,
)
from extract.errors import BackboneError, UnknownLayer
from extract.pooling import Pooling
from extract.transform import TransformSpec
from extract.weights import fetch, fill_network, find_weights, named_weights, read_tensors, weights_digest

NODE_NAME = re.compile(r"\w+(\.\w+)*")  # torchvision takes a name for a regular expression
N_USEFUL = 6  # stages worth naming in an error: few enough for one line
FULL_RANGE = 255.0

__all__ = [
    "Backbone",
    "BackboneInfo",
    "Cut",
    "FeatureExtractor",
    "backbone_dim",
    "cut_network",
    "list_backbones",
    "load_backbone",
    "network_names",
]


@dataclass(frozen=True)
class Backbone:
    """A frozen network that turns images into feature vectors, and everything that its vectors depend on.

    source: "torchvision" or "efficientnet_lite".
    weights: the name of the weights in their enumeration, or the name of the user's file.
    weights_path: the file that the tensors were read from.
    weights_digest: hex SHA-256 of the tensors, without the last layer.
    layer, pooling: the node and the pooling, defaults filled in.
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


@dataclass(frozen=True)
class BackboneInfo:
    """One line of `featurecache backbones`: what can be named, and whether its default weights are on this machine."""

    name: str
    source: str
    weights: list[str]
    default_weights: str
    at_hand: bool


class FeatureExtractor(nn.Module):
    """Normalisation, network and pooling as one module of plain tensor operations.

    graph: the network cut at one node; returns {"features": output of the node}.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, graph: nn.Module, pooling: nn.Module, transform: TransformSpec) -> None:
        super().__init__()
        mean = torch.tensor(transform.mean, dtype=torch.float64).view(1, -1, 1, 1)
        std = torch.tensor(transform.std, dtype=torch.float64).view(1, -1, 1, 1)
        self.register_buffer("scale", (1.0 / (FULL_RANGE * std)).float())
        self.register_buffer("shift", (-mean / std).float())
        self.graph = graph
        self.pooling = pooling

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float32 (B, D)."""
        features: Tensor = self.pooling(self.graph(images.float() * self.scale + self.shift)["features"])
        return features


def load_backbone(
    name: str, *, weights: str | None = None, layer: str | None = None, pooling: str | None = None
) -> Backbone:
    """Load a backbone by name, frozen and in eval mode, with the transform that its weights expect.

    weights: a name from torchvision's enumeration, a .pth or .safetensors file, or None for the default.
    layer: any node of the network's graph; None for the end of the network.
    pooling: avg, max, gem, flatten or cls; without a layer it applies to the last feature map.
    Raises UnknownBackbone, UnknownLayer, WeightsMissing, WeightsMismatch, or BackboneError for a pooling that the layer
    does not allow.
    """
    check_name(name)
    found = find_weights(name, weights)
    path = fetch(found)
    network = build_network(name, found.meta)
    fill_network(network, read_tensors(path), backbone=name, file_name=path.name)
    cut = cut_network(name, network, found.transform, layer, pooling)
    return Backbone(
        name=name,
        source=_source(name),
        weights=found.name,
        weights_path=path,
        weights_digest=weights_digest(network),
        layer=cut.layer,
        pooling=cut.pooling,
        transform=found.transform,
        feature_dim=cut.feature_dim,
        module=cut.module,
    )


def backbone_dim(name: str, *, layer: str | None = None, pooling: str | None = None) -> int:
    """D, the length of the vectors, from shapes alone: no weights are needed and nothing is computed."""
    check_name(name)
    found = find_weights(name)
    return cut_network(name, build_network(name, found.meta), found.transform, layer, pooling).feature_dim


def list_backbones() -> list[BackboneInfo]:
    """Everything that `load_backbone` takes, the one that comes with pip first."""
    return [_info(name) for name in network_names()]


def _info(name: str) -> BackboneInfo:
    sources = named_weights(name)
    return BackboneInfo(name, _source(name), [source.name for source in sources], sources[0].name, sources[0].at_hand)


def _source(name: str) -> str:
    return "efficientnet_lite" if name in LITE_SIZES else "torchvision"


@dataclass(frozen=True)
class Cut:
    """A network cut at a node and pooled: the module, and the names and the dimension that it was resolved to."""

    module: FeatureExtractor
    layer: str
    pooling: str
    feature_dim: int


def cut_network(
    name: str, network: Network, transform: TransformSpec, layer: str | None = None, pooling: str | None = None
) -> Cut:
    """Cut a network at a node, and pool what comes out; the network may be without values.

    Raises UnknownLayer, or BackboneError where the node puts out nothing that this pooling takes.
    """
    node = _default_layer(network.family, pooling) if layer is None else layer
    graph = _graph_up_to(name, network, node)
    output = output_on_meta(FeatureExtractor(graph, nn.Identity(), transform), transform.crop)
    _check_output(name, node, output)
    kind = _resolve_pooling(output, network.family, pooling)
    pool = Pooling(kind, channels_last=_is_channels_last(output))
    module = FeatureExtractor(graph, pool, transform).eval().requires_grad_(False)
    return Cut(module, node, kind, pool(output).shape[1])


def _default_layer(family: Family, pooling: str | None) -> str:
    return family.feature_map if pooling else family.layer or family.feature_map


def _graph_up_to(name: str, network: Network, node: str) -> fx.GraphModule:
    """The network up to `node`, as a graph of the operations that eval mode runs."""
    leaves = {"leaf_modules": list(network.leaf_modules)}
    try:
        if not NODE_NAME.fullmatch(node):
            raise ValueError(node)
        dual = create_feature_extractor(
            network.module, {node: "features"}, tracer_kwargs=leaves, suppress_diff_warning=True
        )
    except ValueError as error:
        raise UnknownLayer(_unknown_layer(name, node, network)) from error
    return fx.GraphModule(dual, dual.eval_graph)


def _unknown_layer(name: str, node: str, network: Network) -> str:
    leaves = {"leaf_modules": list(network.leaf_modules)}
    nodes = get_graph_node_names(network.module, tracer_kwargs=leaves, suppress_diff_warning=True)[1]
    paths = {".".join(parts[:depth]) for parts in (n.split(".") for n in nodes) for depth in range(1, len(parts) + 1)}
    near = difflib.get_close_matches(node, sorted(paths), N_NEIGHBOURS, cutoff=0.5)
    nearest = f"nearest: {', '.join(near)}; " if near else ""
    stages = list(dict.fromkeys(n.split(".")[0] for n in nodes[1:]))
    return f"{name} has no layer '{node}'; {nearest}among its stages: {', '.join(stages[-N_USEFUL:])}"


def _check_output(name: str, node: str, output: Any) -> None:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise BackboneError(
            f"layer '{node}' of {name} does not put out one feature map; choose the layer before or after"
        )
    if output.ndim not in (2, 3, 4) or output.shape[0] != PROBE_ROWS:
        shape = " x ".join(str(size) for size in output.shape)
        raise BackboneError(
            f"layer '{node}' of {name} puts out {shape} for {PROBE_ROWS} images, not a feature map, tokens or a vector "
            f"for each; choose the layer before or after"
        )


def _resolve_pooling(output: Tensor, family: Family, pooling: str | None) -> str:
    """The pooling asked for, or the usual one; for a vector always `flatten`, for nothing is left to choose."""
    if output.ndim == 2 and pooling != "cls":
        return "flatten"
    usual = family.pooling if output.ndim == 3 else "avg"
    return pooling or usual


def _is_channels_last(output: Tensor) -> bool:
    """Whether a map is (B, h, w, D): the images are square, and so is every map of theirs."""
    return output.ndim == 4 and output.shape[1] == output.shape[2] != output.shape[3]
