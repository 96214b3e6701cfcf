"""Checks of an ONNX graph from a cache folder, before ONNX Runtime loads it.

A graph cannot start other programs, but it could read its weights from any file of the machine (external data), define
operators and functions, loop for ever, or be the graph of another network. An exported graph has standard operators
only, no control flow, its weights in the file, and in its metadata the identity that it was exported for:

    images    uint8 (B, 3, S, S)   -> features   float32 (B, D)        metadata   featurecache.identity

Whether its weights are those of the network is not checked. Reading a graph needs the package onnx, which takes longer
to import than the graph takes to load: that a graph has passed is kept by its SHA-256 in the folder of the user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from featurecache.base.known_answers import known_answer, remember_answer

# Operators of the standard; those of ONNX Runtime and of vendors are not used.
DOMAINS = ("", "ai.onnx")
IDENTITY = "featurecache.identity"
INPUT, OUTPUT = "images", "features"
PASSED = "it passed"


def bind_graph(graph: bytes, identity: Mapping[str, Any]) -> bytes:
    """Return the graph with the identity in its metadata; concatenated protobuf messages are one merged message."""
    import onnx

    entry = onnx.StringStringEntryProto(key=IDENTITY, value=identity_digest(identity))
    more: bytes = onnx.ModelProto(metadata_props=[entry]).SerializeToString()
    return graph + more


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 in hex of an identity as JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def graph_fault_once(
    graph: bytes, identity: Mapping[str, Any], *, batch_size: int, side: int, feature_dim: int | None
) -> str:
    """Return what `graph_fault` does; a graph that has passed for this identity is not read again.

    identity: with the digest of the modules of engines/, so that other checks are made again.
    """
    asked = ["graph", hashlib.sha256(graph).hexdigest(), identity_digest(identity), batch_size, side, feature_dim]
    question = json.dumps(asked)
    if known_answer(question) == PASSED:
        return ""
    fault = graph_fault(graph, identity, batch_size=batch_size, side=side, feature_dim=feature_dim)
    if not fault:
        remember_answer(question, PASSED)
    return fault


def graph_fault(
    graph: bytes, identity: Mapping[str, Any], *, batch_size: int, side: int, feature_dim: int | None
) -> str:
    """Return why a graph is not a valid export for this identity, as a clause; empty if it is one.

    feature_dim: D, None if it is unknown.
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
        return "it defines functions"
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
    return "" if found == wanted else "its inputs or outputs have another name, type or shape"


def _described(value: Any) -> tuple[str, int, list[Any]]:
    """Return name, type and shape; a dimension that is not fixed is 0."""
    kind = value.type.tensor_type
    return value.name, kind.elem_type, [side.dim_value for side in kind.shape.dim]


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
