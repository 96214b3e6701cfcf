"""Nodes and constants of an ONNX graph that is being built, and other models within it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, DTypeLike
    from onnx import ModelProto, NodeProto, TensorProto

# Of the whole file: those that torch exports have it, and onnxruntime-web takes it.
OPSET, IR_VERSION = 20, 10
# Constants of up to so many bytes are there once.
MOST_SHARED = 1024


class Nodes:
    """The nodes of one graph, in order; every name that it gives out is new."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.domains: dict[str, int] = {"": OPSET}
        self._n_names, self._known = 0, dict[tuple[str, tuple[int, ...], bytes], str]()

    def constant(self, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """Return the name of a constant; equal small ones are one."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype=dtype)
        if array.nbytes > MOST_SHARED:
            self.constants.append(numpy_helper.from_array(array, self._name("constant")))
            return self.constants[-1].name
        known = (array.dtype.str, array.shape, array.tobytes())
        if known not in self._known:
            self._known[known] = self._name("constant")
            self.constants.append(numpy_helper.from_array(array, self._known[known]))
        return self._known[known]

    def axes(self, *axes: int) -> str:
        """Return the name of the axes of a reduction or a reshape."""
        return self.constant(list(axes), np.int64)

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of one output and return the name of that."""
        from onnx import helper

        output = name or self._name(operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def add_several(self, operator: str, *inputs: str, n_outputs: int, **attributes: Any) -> list[str]:
        """Add a node and return the names of its outputs."""
        from onnx import helper

        outputs = [self._name(operator.lower()) for _ in range(n_outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def cast(self, value: str, dtype: DTypeLike) -> str:
        """Return a value as another type of numpy."""
        from onnx import helper

        return self.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def include(self, model: ModelProto, inputs: Mapping[str, str]) -> dict[str, str]:
        """Add all of another model, whose inputs are these values here; return its outputs, {own name: name here}."""
        from onnx import compose

        prefix = f"{self._name('graph')}/"
        for own, value in inputs.items():
            self.add("Identity", value, name=prefix + own)
        included = compose.add_prefix(model, prefix)
        for node in included.graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
            node.name = ""
        self.nodes.extend(in_order(included.graph.node))
        self.constants.extend(included.graph.initializer)
        for each in model.opset_import:
            self.domains[each.domain] = max(each.version, self.domains.get(each.domain, 0))
        return {value.name: prefix + value.name for value in model.graph.output}

    def _name(self, kind: str) -> str:
        self._n_names += 1
        return f"{kind}_{self._n_names}"

    def model(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> ModelProto:
        """Return the model with these inputs and outputs, checked by onnx."""
        import onnx
        from onnx import helper

        used = set(_inputs(self.nodes))
        constants = [each for each in self.constants if each.name in used]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, constants)
        imports = [helper.make_opsetid(domain, version) for domain, version in self.domains.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="featurecache")
        onnx.checker.check_model(model)
        return model


def in_order(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """Return nodes with each after those whose outputs it takes, as a graph has to have them; quantised ones do not."""
    every = list(nodes)
    makers = {name: number for number, node in enumerate(every) for name in node.output}
    needed = [[makers[name] for name in _inputs([node]) if name in makers] for node in every]
    placed: dict[int, NodeProto] = {}
    for number in range(len(every)):
        waiting = [number]
        while waiting:
            before = [each for each in needed[waiting[-1]] if each not in placed]
            if not before:
                placed.setdefault(waiting[-1], every[waiting[-1]])
                waiting.pop()
            waiting.extend(before)
    return list(placed.values())


def _inputs(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Yield the names of the values that nodes take, and graphs within them."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _inputs(graph.node)
