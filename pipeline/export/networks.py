"""The graph of a network for one image: normalisation, backbone and pooling, uint8 (1, 3, S, S) to float32 (1, D).

It is exported and compared as the graphs of an extraction are, and stored with them, so that other heads of the same
features are exported in seconds.

In int8 its weights are written as uint8. Products of uint8 and int8 saturate in ONNX Runtime on processors without VNNI
unless a session is set up for that (`extract.engines.exact_products`); those of uint8 and uint8 do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import EngineError, PipelineError
from featurecache.base.text import printable
from featurecache.extract.cache.spec import INT8, PRECISIONS, FeatureSpec
from featurecache.extract.engines.graph_store import GraphFolder, Verdict
from featurecache.extract.engines.protocol import NetworkIdentity, Source
from featurecache.extract.in_memory.network import GraphsOfUser

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from featurecache.extract.cache.ranges import Ranges

FP32 = PRECISIONS[0]
EXPORTED = (FP32, INT8)
BATCH_SIZE = 1
# In uint8, what 0 is in int8.
UNSIGNED_ZERO = 128


class _Kept(GraphFolder):
    """Graphs of a store, of which the last one that was saved is kept in memory, too."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._store = GraphsOfUser(root)
        self.last: bytes | None = None

    def find(self, identity: Mapping[str, Any]) -> tuple[Verdict, bytes | None] | None:
        """Return what the store has for this identity."""
        found = self._store.find(identity)
        self.last = found[1] if found else self.last
        return found

    def save(self, identity: Mapping[str, Any], verdict: Verdict, graph: bytes | None) -> bool:
        """Save both in the store."""
        self.last = graph
        return self._store.save(identity, verdict, graph)


def network_graph(
    spec: FeatureSpec,
    folder: Path,
    load: Callable[[], nn.Module],
    *,
    ranges: Callable[[], Ranges],
    say: Callable[[str], None],
) -> ModelProto:
    """Return the network of some features as a model, exported unless it is stored.

    folder: of their cache. load: returns the module. ranges: those of the activations, in int8. say: called before slow
    steps. Raises PipelineError where there is no such graph, with the reason, BackboneError.
    """
    import onnx

    name = printable(spec.backbone)
    if spec.precision not in EXPORTED:
        raise PipelineError(
            f"The head takes features of {name} in {spec.precision}, and an exported file computes in fp32 or int8. "
            "Extract the features in one of these, train a head on them, and export that."
        )
    graphs = _Kept(folder)
    source = _source(spec, load)
    try:
        content = _in_int8(source, ranges(), graphs, say) if spec.precision == INT8 else _in_fp32(source, graphs, say)
    except EngineError as error:
        raise PipelineError(f"The network {name} cannot be exported: {error}.") from error
    model = onnx.load_model_from_string(content)
    return with_unsigned_weights(model) if spec.precision == INT8 else model


def _source(spec: FeatureSpec, load: Callable[[], nn.Module]) -> Source:
    identity: NetworkIdentity = {
        "backbone": spec.backbone,
        "weights": spec.weights_digest,
        "cuts": [[spec.layer, spec.pooling]],
        "transform": spec.transform.to_dict(),
        "network": spec.network,
    }
    columns = (slice(0, spec.feature_dim),)
    return Source(identity, spec.transform.crop, load, spec.feature_dim, columns)


def _in_fp32(source: Source, graphs: _Kept, say: Callable[[str], None]) -> bytes:
    from featurecache.extract.engines.choice import compare_engines, full_identity, saved_choice
    from featurecache.extract.engines.graph_checks import bind_graph, graph_fault

    identity = full_identity(source, BATCH_SIZE)
    saved = saved_choice(source, identity, BATCH_SIZE, graphs, say)
    if saved is not None and saved[1] is not None:
        return saved[1]
    say(f"Exporting the network {printable(source.identity['backbone'])} and comparing it with torch")
    verdict, graph = compare_engines(source, BATCH_SIZE)
    if graph is None:
        raise EngineError(verdict.reason)
    bound = bind_graph(graph, identity)
    fault = graph_fault(bound, identity, batch_size=BATCH_SIZE, side=source.side, feature_dim=source.feature_dim)
    if fault:
        raise EngineError(fault)
    if verdict.is_lasting:
        graphs.save(identity, verdict, bound)
    return bound


def _in_int8(source: Source, ranges: Ranges, graphs: _Kept, say: Callable[[str], None]) -> bytes:
    from featurecache.extract.engines.int8 import build_int8_engine

    build_int8_engine(source, ranges, batch_size=BATCH_SIZE, graphs=graphs, say=say)
    assert graphs.last is not None, "an engine in int8 has a graph"
    return graphs.last


def with_unsigned_weights(model: ModelProto) -> ModelProto:
    """Return a model whose quantised weights are uint8 in place of int8: the same numbers, with 128 for zero."""
    from onnx import TensorProto, numpy_helper

    tensors = {each.name: each for each in model.graph.initializer if each.data_type == TensorProto.INT8}
    changed = set()
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in tensors:
            continue
        names = [node.input[0], *node.input[2:]]
        if len(names) == 1:
            scale = next(each for each in model.graph.initializer if each.name == node.input[1])
            zeros = numpy_helper.from_array(np.zeros(list(scale.dims), np.int8), f"{node.output[0]}_zero")
            model.graph.initializer.append(zeros)
            tensors[zeros.name] = model.graph.initializer[-1]
            node.input.append(zeros.name)
            names.append(zeros.name)
        changed.update(names)
    for name in changed:
        values = numpy_helper.to_array(tensors[name]).astype(np.int16) + UNSIGNED_ZERO
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.uint8), name))
    return model
