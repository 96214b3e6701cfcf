"""The nodes and constants of an ONNX graph that is being written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.export.nodes import IR_VERSION, OPSET

if TYPE_CHECKING:
    import onnx
    from numpy.typing import DTypeLike, NDArray


class Nodes:
    """Nodes and constants in the order in which they are added; every value has a name that no other has."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.domains: dict[str, int] = {"": OPSET}
        self._n_names = 0

    def fresh(self, what: str) -> str:
        """Return a name that no value of this graph has."""
        self._n_names += 1
        return f"{what}_{self._n_names}"

    def constant(self, values: Any, dtype: DTypeLike) -> str:
        """Add an array and return its name."""
        from onnx import numpy_helper

        name = self.fresh("constant")
        array: NDArray[Any] = np.ascontiguousarray(np.asarray(values, dtype=dtype))
        # ascontiguousarray gives a single number an axis.
        self.constants.append(numpy_helper.from_array(array.reshape(np.shape(values)), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the name of that."""
        return self.add_several(operator, *inputs, n_outputs=1, **attributes)[0]

    def add_several(self, operator: str, *inputs: str, n_outputs: int, **attributes: Any) -> list[str]:
        """Add a node and return the names of its outputs."""
        from onnx import helper

        outputs = [self.fresh(operator.lower()) for _ in range(n_outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def cast(self, value: str, dtype: DTypeLike) -> str:
        """Add a cast of a value to a type of numbers."""
        from onnx import helper

        return self.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def axes(self, *axes: int) -> str:
        """Add the axes of a reduction or a reshape as a constant."""
        return self.constant(list(axes), np.int64)

    def model(self, inputs: dict[str, int], outputs: dict[str, str], n_classes: int) -> onnx.ModelProto:
        """Return the model: inputs {name: D}, float32 (B, D); outputs {name: value}: `codes` (B,), else (B, C)."""
        from onnx import TensorProto, helper

        for name, value in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", dim]) for name, dim in inputs.items()]
        found = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["B"])
            if name == "codes"
            else helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", n_classes])
            for name in outputs
        ]
        graph = helper.make_graph(self.nodes, "head", given, found, self.constants)
        imports = [helper.make_opsetid(domain, version) for domain, version in self.domains.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="featurecache")
