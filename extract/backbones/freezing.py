"""Partial freezing: a network split into a frozen lower part and an upper part that is trained.

    uint8 (B, 3, S, S) -> lower -> map -> upper -> vector (B, D),      upper(lower(x)) = network(x)

A network can be split at every node that all paths pass through (a dominator of the output). The lower part needs no
module of its own: its output is what the cache stores for this layer with pooling `flatten`. The upper part shares its
tensors with the network that it was split from, so training it changes that network too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from featurecache.base.errors import BackboneError, UnknownLayer
from featurecache.extract.backbones.architectures import Network, output_on_meta
from featurecache.extract.backbones.cuts import (
    STAGES,
    CutRequest,
    FeatureExtractor,
    is_channels_last,
    pooling_for,
    stage_ends,
)
from featurecache.extract.backbones.cutting import TracedNetwork, candidate_nodes
from featurecache.extract.backbones.graph import dominators, nodes_between, parameters_of, required_nodes
from featurecache.extract.backbones.names import library_of
from featurecache.extract.backbones.pooling import Pooling
from featurecache.extract.cache.transform_spec import TransformSpec

ALL = "all"
# The default part to train: 3 stages of 8 (EfficientNet), 1 of 4 (ResNet). Maps are small there.
USUAL_SHARE = 3 / 8


@dataclass(frozen=True)
class Split:
    """The split point of a network, and its upper part.

    unfreeze: as requested, or the default.
    layer: the node whose output is the input of the upper part; None if that is the image.
    shape: of that input for one image, before `flatten`: (C, h, w), (T, D) or (D,); (3, S, S) for the image.
    upper: (B, *shape) -> float32 (B, D); uint8 (B, 3, S, S) -> float32 (B, D) if `layer` is None.
    stages: the parameters of the upper part by stage, the lowest stage first.
    feature_dim: D.
    """

    unfreeze: str
    layer: str | None
    shape: tuple[int, ...]
    upper: nn.Module
    stages: list[list[nn.Parameter]]
    feature_dim: int


def split_network(
    name: str, network: Network, transform: TransformSpec, request: CutRequest, *, unfreeze: str | None = None
) -> Split:
    """Split a network with loaded weights below the part that `unfreeze` names; its upper end is the requested layer.

    unfreeze: a number of stages from the end, the name of a stage or block, or "all"; None for the last USUAL_SHARE.
    Raises UnknownLayer, with the possible values, if the network cannot be split there; BackboneError if the requested
    layer is `stages`, or if there are no parameters above the split.
    """
    if network.whole is not None or library_of(name):
        raise BackboneError(
            f"{name} cannot be fine-tuned: the networks of torchvision and efficientnet_lite can. Train heads on its "
            "features, or begin with a run on one of those."
        )
    if request.layer == STAGES:
        raise BackboneError(
            f"The layer '{STAGES}' is the ends of all stages at once, and a network ends in one place: name one layer."
        )
    return _Splitting(name, network, transform, request).split(unfreeze)


class _Splitting:
    """The search for the split point of one network, and the construction of its upper part."""

    def __init__(self, name: str, network: Network, transform: TransformSpec, request: CutRequest) -> None:
        self.name, self.network, self.transform = name, network, transform
        self.traced = TracedNetwork(name, network)
        (end_name,) = candidate_nodes(network, self.traced, request)
        self.end = self.traced.node(end_name)
        self.nodes = nodes_between(self.traced.graph, self.end)
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self.dominators = dominators(self.nodes)
        stages = [
            path for path in candidate_nodes(network, self.traced, CutRequest(STAGES))[:-1] if self._is_inside(path)
        ]
        named = {path: self.traced.node(path) for path in [*stages, end_name]}
        passed = {self._name(node): node for node in self.dominators if node.op != "placeholder"}
        graph = self.traced.graph_with({**passed, **named})
        outputs: Any = output_on_meta(FeatureExtractor(graph, transform), transform.crop)
        self.outputs = {node: outputs[path] for path, node in {**passed, **named}.items()}
        self.stages = stage_ends({path: outputs[path] for path in named})
        self.kind = pooling_for(outputs[end_name], network.family, request)

    def split(self, unfreeze: str | None) -> Split:
        unfreeze = str(max(1, int(USUAL_SHARE * len(self.stages)))) if unfreeze is None else unfreeze
        node = self._split_node(unfreeze)
        module, stages = self._upper(node)
        if not any(stages):
            raise BackboneError(f"{self.name} has nothing that could be trained above '{unfreeze}'; name a lower part")
        pool = self._pool()
        feature_dim = int(pool(self.outputs[self.end]).shape[1])
        if node is None:
            side = self.transform.crop
            upper = FeatureExtractor(module, self.transform).eval()
            return Split(unfreeze, None, (3, side, side), upper, stages, feature_dim)
        shape = tuple(self.outputs[node].shape[1:])
        if is_channels_last(self.outputs[node]):
            shape = (shape[2], shape[0], shape[1])
        return Split(unfreeze, self._name(node), shape, module.eval(), stages, feature_dim)

    def names(self) -> tuple[list[str], list[str]]:
        """Return the stages, named by the modules that end them, and all other parts that `unfreeze` accepts."""
        depth = max((path.count(".") for path in self.stages[:-1]), default=0)
        parts = []
        for path, module in self.network.module.named_modules():
            is_block = any(True for _ in module.children()) and not isinstance(module, nn.Conv2d)
            named = path.count(".") <= depth or (path.count(".") == depth + 1 and is_block)
            if path and named and any(True for _ in module.parameters()) and self._is_part(path):
                parts.append(path)
        return self.stages, parts

    def _split_node(self, unfreeze: str) -> fx.Node | None:
        """Return the last node of the frozen part; None if everything is trained."""
        if unfreeze == ALL:
            return None
        if unfreeze.isdecimal() and int(unfreeze) > 0:
            n = int(unfreeze)
            if n <= len(self.stages):
                return self.traced.node(self.stages[-n - 1]) if n < len(self.stages) else None
        before = self._before(unfreeze)
        if before is None:
            stages, parts = self.names()
            raise UnknownLayer(
                f"{self.name} cannot be split below '{unfreeze}'; --unfreeze takes a number of stages up to "
                f"{len(stages)}, 'all', or one of {', '.join(parts)}"
            )
        return None if before.op == "placeholder" else before

    def _before(self, path: str) -> fx.Node | None:
        """Return the one node that is the input of this part; None if there is no such part, or several inputs."""
        own = [i for i, node in enumerate(self.nodes) if _is_in(self.traced.paths.get(node, ""), path)]
        if not own or own[0] == 0:
            return None
        before = self.nodes[own[0] - 1]
        return before if before in self.dominators else None

    def _is_part(self, path: str) -> bool:
        return self._is_inside(path) and self._before(path) is not None and self.traced.node(path) in self.dominators

    def _is_inside(self, path: str) -> bool:
        """Whether the last operation of this part is on a path to the output."""
        try:
            return self.traced.node(path) in self.index
        except UnknownLayer:
            return False

    def _name(self, node: fx.Node) -> str:
        """Return the name of a node: the stage that it ends, or else the largest part that it ends."""
        parts = self.traced.paths[node].split(".")
        names = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        own = [name for name in names if self.traced.node(name) is node]
        return next((name for name in own if re.fullmatch(self.network.family.stages, name)), own[0])

    def _pool(self) -> Pooling:
        return Pooling(self.kind, channels_last=is_channels_last(self.outputs[self.end]))

    def _upper(self, split: fx.Node | None) -> tuple[fx.GraphModule, list[list[nn.Parameter]]]:
        """Return everything above the split as a module, and its parameters by stage."""
        graph, copies = fx.Graph(), {}
        start = -1 if split is None else self.index[split]
        first = self.nodes[0] if split is None else split
        copies[first] = graph.placeholder("maps")
        if split is not None and is_channels_last(self.outputs[split]):
            copies[first] = graph.call_method("permute", (copies[first], 0, 2, 3, 1))
        ends = {self.traced.node(path) for path in self.stages[:-1]}
        stages: list[list[nn.Parameter]] = [[]]
        seen: set[int] = set()
        for node in required_nodes(self.traced.graph, self.end, first):
            copies[node] = graph.node_copy(node, lambda old: copies[old])
            for parameter in parameters_of(self.traced.root, node):
                if id(parameter) not in seen:
                    stages[-1].append(parameter)
                    seen.add(id(parameter))
            if node in ends and self.index[node] > start:
                stages.append([])
        root = self.traced.root
        module = fx.GraphModule(root, graph)
        module.add_submodule("pooling", self._pool())
        graph.output(graph.call_module("pooling", (copies[self.end],)))
        graph.lint()
        module.recompile()
        return module, [stage for stage in stages if stage]


def _is_in(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}.")
