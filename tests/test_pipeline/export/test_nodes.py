"""A graph that is being built takes in other models, whatever the order of their nodes."""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from featurecache.export.nodes import Nodes


def number(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])


def test_a_model_is_taken_in_with_its_nodes_in_order():
    nodes = [
        helper.make_node("Mul", ["more", "most"], ["y"]),
        helper.make_node("Add", ["more", "one"], ["most"]),
        helper.make_node("Add", ["x", "one"], ["more"]),
    ]
    graph = helper.make_graph(
        nodes, "unsorted", [number("x")], [number("y")], [helper.make_tensor("one", 1, [1], [1.0])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    whole = Nodes()
    first = whole.include(model, {"x": "given"})["y"]
    whole.add("Identity", whole.include(model, {"x": first})["y"], name="found")
    content = whole.model("whole", [number("given")], [number("found")]).SerializeToString()
    given = np.array([0.5, 2.0], np.float32)
    (found,) = onnxruntime.InferenceSession(content).run(None, {"given": given})
    once = (given + 1) * (given + 2)
    np.testing.assert_allclose(found, (once + 1) * (once + 2))
