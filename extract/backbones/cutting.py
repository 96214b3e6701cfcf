"""Cutting a network: pooled features of one node, of the end of every stage, or of several of these, concatenated.

    uint8 (B, 3, S, S) -> normalise -> network -> pooling at every node asked for -> (B, D1 + ... + Dk)

Node names are those of torchvision's feature extraction, on the network whose last layer is the identity. So
`--layer classifier` of vgg16 is the input of its last layer, 4096 numbers.

The layer `stages` is the pooled map at the end of every stage, concatenated: Evci et al., Head2Toe: Utilizing
Intermediate Representations for Better Transfer Learning, ICML 2022. `architectures.FAMILIES` lists the modules that
may end a stage. Of these, in the order in which they run,

- of consecutive modules with outputs of the same shape, only the last ends a stage (they are blocks of one stage);
- if all have the same shape (a ViT has no stages), the last of every quarter does, as in Ranftl et al. 2021 (DPT);
- the end of the network is always the last stage, so the last columns are the vector without `--layer stages`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from featurecache.base.errors import BackboneError, UnknownLayer
from featurecache.extract.backbones.architectures import N_NEIGHBOURS, PROBE_ROWS, Family, Network, output_on_meta
from featurecache.extract.backbones.pooling import Pooling
from featurecache.extract.cache.transform_spec import TransformSpec

STAGES = "stages"
N_QUARTERS = 4  # most networks with stages have four
N_USEFUL = 6  # layers named in an error message: few enough for one line
FULL_RANGE = 255.0


class CutRequest(NamedTuple):
    """A layer and a pooling as the user names them; None for the network's default."""

    layer: str | None = None
    pooling: str | None = None


@dataclass(frozen=True)
class Cut:
    """A resolved CutRequest: D = `feature_dim` columns of the output, from column `start` on.

    layer: the node, or "stages:" and the nodes joined by "+".
    """

    layer: str
    pooling: str
    feature_dim: int
    start: int = 0

    @property
    def columns(self) -> slice:
        """The columns of this cut in the module's output."""
        return slice(self.start, self.start + self.feature_dim)


@dataclass(frozen=True)
class CutNetwork:
    """A network cut at one or more layers: one module, and the columns of each cut in its output."""

    module: FeatureExtractor
    cuts: tuple[Cut, ...]

    @property
    def feature_dim(self) -> int:
        """D, the width of the module's output: the sum over all cuts."""
        return sum(cut.feature_dim for cut in self.cuts)


class FeatureExtractor(nn.Module):
    """Normalisation, network and pooling as one module of plain tensor operations.

    network: normalised images (B, 3, S, S) -> features (B, D), pooling included. (It cannot be called `graph`:
        exporters convert this module to one that has an attribute of that name.)
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, transform: TransformSpec) -> None:
        super().__init__()
        mean = torch.tensor(transform.mean, dtype=torch.float64).view(1, -1, 1, 1)
        std = torch.tensor(transform.std, dtype=torch.float64).view(1, -1, 1, 1)
        self.register_buffer("scale", (1.0 / (FULL_RANGE * std)).float())
        self.register_buffer("shift", (-mean / std).float())
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float32 (B, D)."""
        features: Tensor = self.network(images.float() * self.scale + self.shift)
        return features


def cut_network(
    name: str, network: Network, transform: TransformSpec, requests: Sequence[CutRequest] = (CutRequest(),)
) -> CutNetwork:
    """Cut a network at every requested layer and pool the outputs; parameters may be on the meta device.

    Raises UnknownLayer, or BackboneError if the output of a node cannot be pooled as requested.
    """
    traced = TracedNetwork(name, network)
    places = [candidate_nodes(network, traced, each) for each in requests]
    graph = traced.graph_with({place: traced.node(place) for candidates in places for place in candidates})
    outputs: Any = output_on_meta(FeatureExtractor(graph, transform), transform.crop)
    pools = _PooledGraph(graph, traced)
    cuts = []
    for request, candidates in zip(requests, places, strict=True):
        chosen = stage_ends({place: outputs[place] for place in candidates})
        start = pools.width
        kinds = [
            pools.add(name, place, outputs[place], pooling_for(outputs[place], network.family, request))
            for place in chosen
        ]
        layer = f"{STAGES}:{'+'.join(chosen)}" if request.layer == STAGES else chosen[0]
        cuts.append(Cut(layer, kinds[0], pools.width - start, start))
    module = FeatureExtractor(pools.concatenated(), transform).eval().requires_grad_(False)
    return CutNetwork(module, tuple(cuts))


def candidate_nodes(network: Network, traced: TracedNetwork, request: CutRequest) -> list[str]:
    """Return the requested node; for `stages` every node that may end a stage, in execution order, and the last one."""
    family = network.family
    end = family.feature_map if request.pooling else family.layer or family.feature_map
    if request.layer != STAGES:
        return [end if request.layer is None else request.layer]
    pattern = re.compile(family.stages)
    paths = [
        path
        for path, module in network.module.named_modules()
        if pattern.fullmatch(path) or pattern.fullmatch(f"{path}:{type(module).__name__}")
    ]
    before_the_end = (path for path in paths if traced.node(path) is not traced.node(end))
    return [*sorted(before_the_end, key=traced.position), end]


def stage_ends(outputs: dict[str, Any]) -> list[str]:
    """Return the nodes that end a stage by the rules above; `outputs` in execution order, the last always does."""
    *blocks, end = outputs
    stages = [list(stage) for _, stage in groupby(blocks, key=lambda name: outputs[name].shape)]
    if len(stages) == 1:
        return [*(blocks[len(blocks) * quarter // N_QUARTERS - 1] for quarter in range(1, N_QUARTERS)), end]
    return [*(stage[-1] for stage in stages), end]


class TracedNetwork:
    """The graph of the operations that a network runs in eval mode, and the node names."""

    def __init__(self, name: str, network: Network) -> None:
        ops = [value for value in vars(torchvision.ops).values() if isinstance(value, type)]
        leaves = [*network.leaf_modules, *(op for op in ops if issubclass(op, nn.Module))]
        tracer = NodePathTracer(leaf_modules=leaves, autowrap_modules=(math, torchvision.ops))
        self.name = name
        self.graph: fx.Graph = tracer.trace(network.module)
        self.root = tracer.root
        self.paths: dict[fx.Node, str] = dict(tracer.node_to_qualname)

    def node(self, layer: str) -> fx.Node:
        """Return the last operation of `layer`. Raises UnknownLayer."""
        parts = layer.split(".")
        for node, path in reversed(self.paths.items()):
            if path.split(".")[: len(parts)] == parts:
                return node
        raise UnknownLayer(self._unknown(layer))

    def position(self, layer: str) -> int:
        """Return the index, in execution order, of the last operation of `layer`."""
        return list(self.paths).index(self.node(layer))

    def graph_with(self, outputs: dict[str, fx.Node]) -> fx.GraphModule:
        """Return a module that computes these nodes and nothing else; its output is {name: output}."""
        _end(self.graph, outputs)
        return _without_dead_code(fx.GraphModule(self.root, self.graph))

    def _unknown(self, layer: str) -> str:
        parts = [path.split(".") for path in self.paths.values()]
        paths = {".".join(path[:depth]) for path in parts for depth in range(1, len(path) + 1)}
        near = difflib.get_close_matches(layer, sorted(paths), N_NEIGHBOURS, cutoff=0.5)
        nearest = f"nearest: {', '.join(near)}; " if near else ""
        tops = list(dict.fromkeys(path[0] for path in parts[1:]))
        return f"{self.name} has no layer '{layer}'; {nearest}its last parts: {', '.join(tops[-N_USEFUL:])}."


class _PooledGraph:
    """A graph with a pooling layer inserted directly after each cut node.

    Directly after it, because networks compute activations in place, which would overwrite the map that is pooled; it
    also frees the map early.
    """

    def __init__(self, module: fx.GraphModule, traced: TracedNetwork) -> None:
        self.module, self.traced = module, traced
        self.width = 0
        self._done: dict[tuple[fx.Node, str], fx.Node] = {}
        self._pieces: list[fx.Node] = []

    def add(self, name: str, place: str, output: Any, kind: str) -> str:
        """Add the pooled output of a node as the next columns and return the pooling. Raises BackboneError."""
        _check_output(name, place, output)
        pool = Pooling(kind, channels_last=is_channels_last(output))
        self.width += pool(output).shape[1]
        node = self.traced.node(place)
        if (node, kind) not in self._done:
            self._done[node, kind] = self._insert(node, pool)
        self._pieces.append(self._done[node, kind])
        return kind

    def concatenated(self) -> fx.GraphModule:
        """Return the module whose output is all columns, float32 (B, D)."""
        graph = self.module.graph
        _end(graph, None)
        pieces = self._pieces
        _end(graph, pieces[0] if len(pieces) == 1 else graph.call_function(torch.cat, (pieces, 1)))
        return _without_dead_code(self.module)

    def _insert(self, node: fx.Node, pool: Pooling) -> fx.Node:
        graph, target = self.module.graph, f"pooling_{len(self._done)}"
        is_read_again = any(user.op != "output" for user in node.users)
        self.module.add_submodule(target, pool)
        with graph.inserting_after(node):
            pooled = graph.call_module(target, (node,))
        if not is_read_again:
            return pooled
        with graph.inserting_after(pooled):  # flatten and cls return views of the map
            return graph.call_method("clone", (pooled,))


def _end(graph: fx.Graph, result: Any) -> None:
    """Replace the output of a graph by `result`; remove it if that is None."""
    for node in reversed(graph.nodes):
        if node.op == "output":
            graph.erase_node(node)
    if result is not None:
        graph.output(result)


def _without_dead_code(module: fx.GraphModule) -> fx.GraphModule:
    """Return the module with only the operations and submodules that its output depends on."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    return fx.GraphModule(module, module.graph)


def _check_output(name: str, node: str, output: Any) -> None:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise BackboneError(
            f"Layer '{node}' of {name} does not put out one feature map. Choose the layer before or after."
        )
    if output.ndim not in (2, 3, 4) or output.shape[0] != PROBE_ROWS:
        shape = " x ".join(str(size) for size in output.shape)
        raise BackboneError(
            f"Layer '{node}' of {name} puts out {shape} for {PROBE_ROWS} images, not a feature map, tokens or a vector "
            "for each. Choose the layer before or after."
        )


def pooling_for(output: Any, family: Family, request: CutRequest) -> str:
    """Return the requested or default pooling of an output; `flatten` for an output that already is a vector."""
    n_dimensions = getattr(output, "ndim", 0)
    if n_dimensions == 2 and request.pooling != "cls":
        return "flatten"
    return request.pooling or (family.pooling if n_dimensions == 3 else "avg")


def is_channels_last(output: Tensor) -> bool:
    """Whether a map is (B, h, w, D): images are square, so h = w."""
    return output.ndim == 4 and output.shape[1] == output.shape[2] != output.shape[3]
