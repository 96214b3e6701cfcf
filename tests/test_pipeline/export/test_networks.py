"""Networks in int8 are exact in a file that any program runs, without its setting up anything."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from featurecache.export.networks import with_unsigned_weights
from featurecache.extract.engines.exact_products import CONVOLUTIONS, SIDE, X, convolution


@pytest.mark.parametrize(("shape", "groups"), CONVOLUTIONS)
@pytest.mark.parametrize("has_zeros", [True, False])
def test_products_of_the_largest_values_are_exact_on_any_processor(shape, groups, has_zeros):
    weights = np.where(np.arange(np.prod(shape)).reshape(shape) % 5, 127, -128).astype(np.int8)
    step = np.float32(2.0 ** (int(np.prod(shape[1:]) * X * 127).bit_length() - 7))
    model = onnx.load_model_from_string(convolution(weights, groups, step, (1, shape[1] * groups, SIDE, SIDE)))
    if not has_zeros:
        del model.graph.node[1].input[2:]
    session = onnxruntime.InferenceSession(with_unsigned_weights(model).SerializeToString())
    (found,) = session.run(None, {"x": np.full((1, shape[1] * groups, SIDE, SIDE), X, np.uint8)})
    wanted = np.round(weights.reshape(len(weights), -1).astype(np.int64).sum(axis=1) * X / float(step))
    assert (found == wanted[None, :, None, None]).all()
    (kind,) = [each.data_type for each in model.graph.initializer if each.name == "w"]
    assert kind == onnx.TensorProto.UINT8
