"""Whether this processor's products of 8 bits are exact in ONNX Runtime, and the setting for where they are not.

Instructions before VNNI add two products of uint8 and int8 in 16 bits, which saturate: 255 * 127 * 2 is more than a
half-word holds. `session.x64quantprecision` takes other kernels, which widen to 16 bits first: exact, and slower; on a
processor with VNNI, too, which is exact without it. So it is set only where a convolution of the largest values is not
exact: found by computing one, whatever the processor is called. Either way the sums are the same integers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

SETTING = ("session.x64quantprecision", "1")
# Shapes of weights and groups, each for another kernel: 1 x 1, 3 x 3, grouped.
CONVOLUTIONS = (((16, 32, 1, 1), 1), ((16, 16, 3, 3), 1), ((16, 8, 3, 3), 4))
SIDE = 7
X, WEIGHT = 255, 127
ERRORS_ONLY = 3


def make_products_exact(options: onnxruntime.SessionOptions) -> None:
    """Set what a session needs on this processor for exact products in int8."""
    if not products_are_exact():
        options.add_session_config_entry(*SETTING)


@lru_cache(maxsize=1)
def products_are_exact() -> bool:
    """Whether convolutions of the largest values are exact here without the setting; computed once a process."""
    return all(largest_is_exact(shape, groups, is_set=False) for shape, groups in CONVOLUTIONS)


def largest_is_exact(shape: tuple[int, int, int, int], groups: int, *, is_set: bool) -> bool:
    """Whether a convolution of X by WEIGHT, of weights of this shape, is exact; is_set: with the setting."""
    import onnxruntime as ort

    n_products = int(np.prod(shape[1:]))
    # The result is 64 to 127 steps.
    step = np.float32(2.0 ** (int(n_products * X * WEIGHT).bit_length() - 7))
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = ERRORS_ONLY, 1
    if is_set:
        options.add_session_config_entry(*SETTING)
    weights = np.full(shape, WEIGHT, np.int8)
    model = convolution(weights, groups, step, (1, shape[1] * groups, SIDE, SIDE))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((1, shape[1] * groups, SIDE, SIDE), X, np.uint8)})
    return bool((found == round(n_products * X * WEIGHT / float(step))).all())


def convolution(weights: np.ndarray[Any, Any], groups: int, step: np.float32, x: tuple[int, ...]) -> bytes:
    """Return a model of one convolution in int8, uint8 x -> uint8 y in steps, without padding; its scales are 1."""
    from onnx import TensorProto, helper, numpy_helper

    n, side = len(weights), x[2] - weights.shape[2] + 1
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "w": weights,
        "ones": np.ones(n, np.float32),
        "zeros": np.zeros(n, weights.dtype),
        "step": step,
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "zero"], ["real x"]),
        helper.make_node("DequantizeLinear", ["w", "ones", "zeros"], ["real w"], axis=0),
        helper.make_node("Conv", ["real x", "real w"], ["real y"], group=groups),
        helper.make_node("QuantizeLinear", ["real y", "step", "zero"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
        for name, shape in (("x", x), ("y", (1, n, side, side)))
    ]
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "one convolution", ends[:1], ends[1:], made)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())
