"""Measured activation ranges of an exported graph, and the graph in int8 by given ranges.

    fp32 graph --- calibrate(pictures) ---> ranges, in the order of the graph
    fp32 graph --- quantise(ranges) ------> int8 graph: QuantizeLinear and DequantizeLinear around its operators

Static quantisation by ONNX Runtime: activations uint8, asymmetric; weights int8, symmetric, per channel. What comes
before the first convolution or matrix product (the normalisation) and the pooling after the last stay in fp32, so the
features keep more than 8 bits.

Processors without VNNI add two products of 8 bits in 16 bits, which saturate: on one with AVX2 88-92 % of the values
of a convolution differed from exact integers, by up to 36 of 255. With the setting of `exact_products`, or with weights
of 7 bits, none did, nor in depthwise convolutions; so all processors add the same integers. Of the two, 8 bits are
nearer to fp32, and with VNNI they need no setting. Cosine of efficientnet_lite0 to fp32 on photographs and on digits,
and images per second of CPU time on AVX2 without VNNI, relative to fp32:

    weights                       photographs   digits   rate
    8 bits, saturating               0.939       0.850
    8 bits, exact                    0.996       0.981   1.13
    7 bits                           0.983       0.972   1.61
    7 bits, depthwise 8              0.991       0.968   1.52
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featurecache.base.errors import EngineFailed
from featurecache.extract.cache.ranges import Ranges, TensorRange
from featurecache.extract.engines.fixed_batches import first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Operators with weights; those after one of them that are in the second list are quantised too.
WEIGHTED = ("Conv", "Gemm", "MatMul")
FOLLOWING = (
    "Add", "Clip", "Concat", "Flatten", "LeakyRelu", "MaxPool", "AveragePool", "Mul", "Pad", "Relu", "Reshape",
    "Sigmoid", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
# Ranges are rounded outwards to so many significant bits, and the weights that are compared to so many digits: another
# processor, whose sums differ by 1e-6, measures the same.
RANGE_BITS, WEIGHT_TOLERANCE = 7, 1e-3
# Of a step: what a value may be above a rounded one to be rounded down.
ROUNDED_DOWN = 0.01
# Steps above 0 for those below it, of a range that were the same.
SYMMETRIC = 128 / 127


class Quantised(NamedTuple):
    """A tensor that is quantised: its name in this graph, and what its range is recorded with."""

    name: str
    operator: str
    weight: float


def calibrate(graph: bytes, pictures: NDArray[np.uint8]) -> Ranges:
    """Return the ranges of all tensors to quantise, over pictures, uint8 (n, 3, S, S).

    Raises EngineFailed if the graph has nothing to quantise.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    tensors = quantised_tensors(model)
    if not any(each.operator in WEIGHTED for each in tensors):
        raise EngineFailed("it has no convolution and no matrix product")
    lows, highs = _extremes(model, [each.name for each in tensors], pictures)
    found = zip(tensors, lows.tolist(), highs.tolist(), strict=True)
    return Ranges(tuple(TensorRange(each.operator, each.weight, *_range(low, high)) for each, low, high in found))


def quantise(graph: bytes, ranges: Ranges) -> bytes:
    """Return the graph in int8. Raises EngineFailed if the ranges are those of another graph."""
    import onnx

    model = onnx.load_model_from_string(graph)
    tensors = quantised_tensors(model)
    if not _are_of(ranges, tensors):
        raise EngineFailed(
            "the activation ranges of its cache are those of another graph: this version of torch exports the network "
            "otherwise than the one that measured them"
        )
    by_name = {each.name: found for each, found in zip(tensors, ranges.tensors, strict=True)}
    try:
        return _quantised(model, by_name)
    except Exception as error:
        raise EngineFailed(f"ONNX Runtime does not quantise it: {first_line(error)[:160]}") from error


def _quantised(model: Any, ranges: dict[str, TensorRange]) -> bytes:
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

    data = {
        name: TensorData(lowest=np.array(each.low, np.float32), highest=np.array(each.high, np.float32))
        for name, each in ranges.items()
    }
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # its advice on pre-processing goes to the root of all loggers
    try:
        quantiser = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[node.name for node in _nodes(model)],
            nodes_to_exclude=[],
            op_types_to_quantize=[*WEIGHTED, *FOLLOWING],
            extra_options={},
        )
        content: bytes = quantiser.quantize_model().SerializeToString()
    finally:
        logger.setLevel(before)
    return content


def quantised_tensors(model: Any) -> list[Quantised]:
    """Return the activations that the quantised nodes read and write, in the order of the graph, each once."""
    import onnx

    constants = {each.name: each for each in model.graph.initializer}
    kinds = _types(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, Quantised] = {}
    for node in _nodes(model):
        for name in (*node.input, *node.output):
            if name in constants or name in found or kinds.get(name) != onnx.TensorProto.FLOAT:
                continue
            maker = makers.get(name)
            found[name] = Quantised(name, maker.op_type if maker else "input", _weight(maker, constants))
    return list(found.values())


def _nodes(model: Any) -> Iterator[Any]:
    """Yield the nodes that are quantised: those with weights, and some that follow them."""
    after: set[str] = set()
    constants = {each.name for each in model.graph.initializer}
    for node in model.graph.node:
        has_weights = node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in constants
        is_after = any(name in after for name in node.input)
        if has_weights or is_after:
            after.update(node.output)
        if has_weights or (is_after and node.op_type in (*FOLLOWING, "MatMul")):
            yield node


def _types(model: Any) -> dict[str, int]:
    """Return name -> element type of the tensors of a graph."""
    graph = model.graph
    return {each.name: each.type.tensor_type.elem_type for each in (*graph.input, *graph.value_info, *graph.output)}


def _weight(node: Any, constants: dict[str, Any]) -> float:
    """Return the largest absolute weight of a node, to four digits; 0 if it has none."""
    from onnx import numpy_helper

    if node is None or node.op_type not in WEIGHTED or node.input[1] not in constants:
        return 0.0
    peak = float(np.abs(numpy_helper.to_array(constants[node.input[1]])).max(initial=0.0))
    return float(f"{peak:.4g}")


def _extremes(model: Any, names: list[str], pictures: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and the greatest value of each tensor over all pictures: float64 (n,) each."""
    import onnx
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for kind in ("ReduceMin", "ReduceMax"):
        for i, name in enumerate(names):
            output = f"{kind}.{i}"
            watched.graph.node.append(onnx.helper.make_node(kind, [name], [output], keepdims=0))
            watched.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[0]
    found = [
        session.run(None, {session.get_inputs()[0].name: pictures[np.arange(start, start + size) % len(pictures)]})
        for start in range(0, len(pictures), size)
    ]
    table = np.array(found, dtype=np.float64).reshape(len(found), 2, len(names))
    return table[:, 0].min(axis=0), table[:, 1].max(axis=0)


def _range(least: float, greatest: float) -> tuple[float, float]:
    """Return the range from `least` to `greatest` and 0, rounded outwards.

    One from -a to a is widened to SYMMETRIC: 256 values from -a to a, such as those of pixels, would all lie half-way
    between two of its steps, and the last bit of each would decide. So black and white lie on steps.
    """
    low, high = _rounded(min(least, 0.0)), _rounded(max(greatest, 0.0))
    return low, high * SYMMETRIC if high == -low else high


def _rounded(value: float) -> float:
    """Return a value rounded away from 0 to RANGE_BITS significant bits; values such as 6 stay what they are."""
    if not math.isfinite(value):
        raise EngineFailed("its activations are not finite numbers")
    mantissa, exponent = math.frexp(value)
    steps = math.ceil(abs(mantissa) * 2**RANGE_BITS - ROUNDED_DOWN)
    return math.copysign(math.ldexp(steps, exponent - RANGE_BITS), value)


def _are_of(ranges: Ranges, tensors: list[Quantised]) -> bool:
    """Whether ranges were measured on a graph with these tensors."""
    if len(ranges.tensors) != len(tensors):
        return False
    pairs = zip(ranges.tensors, tensors, strict=True)
    return all(a.operator == b.operator and abs(a.weight - b.weight) <= WEIGHT_TOLERANCE * b.weight for a, b in pairs)
