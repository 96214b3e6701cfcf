"""Checks of an ONNX graph from a cache folder, before ONNX Runtime builds anything from it.

A graph is a program of a kind: it cannot start other programs, but it could take its weights from any file of the
machine (external data), bring operators and functions of its own, loop for ever, or be another network's. Ours are a
straight line of standard operators on numbers in the file, and say in themselves for what they were made:

    images    uint8 (B, 3, S, S)   -> features   float32 (B, D)        metadata   featurecache.identity

Whether its numbers are those of the network nobody can see from outside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

# Of the standard itself; those of ONNX Runtime and of its vendors are not needed.
DOMAINS = ("", "ai.onnx")
IDENTITY = "featurecache.identity"
INPUT, OUTPUT = "images", "features"


def bind_graph(graph: bytes, identity: Mapping[str, Any]) -> bytes:
    """The same graph with the identity in its metadata. Serialised messages that follow one another are one message."""
    import onnx

    entry = onnx.StringStringEntryProto(key=IDENTITY, value=identity_digest(identity))
    more: bytes = onnx.ModelProto(metadata_props=[entry]).SerializeToString()
    return graph + more


def identity_digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 in hex of an identity as JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def graph_fault(
    graph: bytes, identity: Mapping[str, Any], *, batch_size: int, side: int, feature_dim: int | None
) -> str:
    """Why a graph is not one of ours for this identity, as a clause; empty where it is.

    feature_dim: D, None where it is not known.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(graph)
    except Exception:  # noqa: BLE001 (protobuf has its own, and they are not exported)
        return "it is no ONNX file"
    bound = {entry.key: entry.value for entry in model.metadata_props}
    if bound.get(IDENTITY) != identity_digest(identity):
        return "it was not made for this network"
    if model.functions or model.graph.sparse_initializer or model.training_info:
        return "it brings functions of its own"
    strange = [each.domain for each in (*model.opset_import, *model.graph.node) if each.domain not in DOMAINS]
    if strange:
        return f"it has operators of '{strange[0][:40]}'"
    kinds = onnx.AttributeProto
    plain = (kinds.FLOAT, kinds.INT, kinds.STRING, kinds.TENSOR, kinds.FLOATS, kinds.INTS, kinds.STRINGS, kinds.TENSORS)
    if any(attribute.type not in plain for node in model.graph.node for attribute in node.attribute):
        return "it has parts that are graphs themselves"
    if any(tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT for tensor in _tensors(model)):
        return "its weights lie in another file"
    tensor = onnx.TensorProto
    found = [_described(value) for value in (*model.graph.input, *model.graph.output)]
    n_columns: Any = found[1][2][1:2] if feature_dim is None and len(found) == 2 else [feature_dim]
    wanted = [(INPUT, tensor.UINT8, [batch_size, 3, side, side]), (OUTPUT, tensor.FLOAT, [batch_size, *n_columns])]
    return "" if found == wanted else "it takes or gives other arrays"


def _described(value: Any) -> tuple[str, int, list[Any]]:
    """Name, type and shape; a side that is not fixed is 0."""
    kind = value.type.tensor_type
    return value.name, kind.elem_type, [side.dim_value for side in kind.shape.dim]


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
