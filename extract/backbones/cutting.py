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
from collections.abc import Callable, Sequence
from threading import Lock, get_ident
from typing import Any

import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from featurecache.base.errors import UnknownLayer
from featurecache.extract.backbones.architectures import Network, output_on_meta
from featurecache.extract.backbones.cuts import (
    STAGES,
    Cut,
    CutNetwork,
    CutRequest,
    FeatureExtractor,
    check_output,
    is_channels_last,
    pooling_for,
    stage_ends,
)
from featurecache.extract.backbones.listing import N_NEIGHBOURS
from featurecache.extract.backbones.pooling import Pooling
from featurecache.extract.backbones.whole_networks import cut_whole
from featurecache.extract.cache.transform_spec import TransformSpec

# torch.fx patches nn.Module while it traces, and two that overlap would never take their patches back.
TRACING = Lock()
N_USEFUL = 6  # layers named in an error message: few enough for one line


def cut_network(
    name: str, network: Network, transform: TransformSpec, requests: Sequence[CutRequest] = (CutRequest(),)
) -> CutNetwork:
    """Cut a network at every requested layer and pool the outputs; parameters may be on the meta device.

    Raises UnknownLayer, or BackboneError if the output of a node cannot be pooled as requested.
    """
    if network.whole is not None:
        return cut_whole(name, network.module, network.whole, transform, requests)
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


class _Tracer(NodePathTracer):  # type: ignore[misc] # torchvision has no types
    """A tracer of what one thread calls; the modules that others call meanwhile run as ever."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self._thread = get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


class TracedNetwork:
    """The graph of the operations that a network runs in eval mode, and the node names."""

    def __init__(self, name: str, network: Network) -> None:
        ops = [value for value in vars(torchvision.ops).values() if isinstance(value, type)]
        leaves = [*network.leaf_modules, *(op for op in ops if issubclass(op, nn.Module))]
        tracer = _Tracer(leaf_modules=leaves, autowrap_modules=(math, torchvision.ops))
        self.name = name
        with TRACING:
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
        check_output(name, place, output)
        # Of a vision transformer, whose first token is that of the class. `avg` has always been over all tokens.
        n_prefix = 1 if kind == "cls+avg" else 0
        pool = Pooling(kind, channels_last=is_channels_last(output), n_prefix=n_prefix)
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
