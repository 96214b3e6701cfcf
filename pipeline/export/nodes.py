"""Nodes and constants of an ONNX graph that is being built, and other graphs within it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# Of the whole file: those that torch exports have it, and onnxruntime-web takes it.
OPSET, IR_VERSION = 20, 10
DOMAINS = ("", "ai.onnx")


class Nodes:
    """The nodes of one graph, in order; every name that it gives out is new."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._n_names, self._known = 0, dict[tuple[str, tuple[int, ...], bytes], str]()
        self._n_graphs = 0

    def constant(self, value: ArrayLike, dtype: Any = None) -> str:
        """Return the name of a constant; equal ones are one."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype=dtype)
        known = (array.dtype.str, array.shape, array.tobytes())
        if known not in self._known:
            self._known[known] = self._name("constant")
            self.constants.append(numpy_helper.from_array(array, self._known[known]))
        return self._known[known]

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of one output and return the name of that."""
        from onnx import helper

        output = name or self._name(operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def cast(self, value: str, dtype: Any) -> str:
        """Return a value as another type of numpy."""
        from onnx import helper

        return self.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def include(self, graph: GraphProto, inputs: Mapping[str, str]) -> dict[str, str]:
        """Add all of another graph, whose inputs are these values here; return {its output: its name here}."""
        from onnx import NodeProto, TensorProto

        self._n_graphs += 1
        names = dict(inputs)

        def renamed(name: str) -> str:
            return names.setdefault(name, f"graph{self._n_graphs}/{name}") if name else ""

        for tensor in graph.initializer:
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copy.name = renamed(tensor.name)
            self.constants.append(copy)
        for node in graph.node:
            mine = NodeProto()
            mine.CopyFrom(node)
            mine.ClearField("metadata_props")
            mine.ClearField("doc_string")
            mine.name = ""
            del mine.input[:], mine.output[:]
            mine.input.extend(map(renamed, node.input))
            mine.output.extend(map(renamed, node.output))
            self.nodes.append(mine)
        return {value.name: renamed(value.name) for value in graph.output}

    def _name(self, kind: str) -> str:
        self._n_names += 1
        return f"{kind}_{self._n_names}"

    def model(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> ModelProto:
        """Return the model with these inputs and outputs, checked by onnx."""
        import onnx
        from onnx import helper

        used = {each for node in self.nodes for each in node.input}
        constants = [each for each in self.constants if each.name in used]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model
