"""Resizing in a graph: the pixels of `fit_pixels`, bit by bit, for images of any size."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from featurecache.base.errors import EngineError
from featurecache.export.nodes import Nodes
from featurecache.export.resizing import add_transform
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.transform import fit_pixels

SIZES = [(1, 1), (1, 9), (28, 28), (40, 40), (57, 83), (230, 31), (20, 700), (300, 401)]
SPECS = [
    (44, 40, "bilinear", {}),
    (44, 36, "bicubic", {}),
    (32, 32, "bicubic", {"fit": "squash"}),
    (30, 30, "bilinear", {"fit": "pad", "fill": (3, 100, 200)}),
    (26, 32, "bilinear", {}),
    (32, 28, "nearest", {"fit": "squash"}),
    (32, 28, "nearest-exact", {}),
    (32, 32, "nearest-pillow", {"fit": "pad"}),
]


def spec_of(resize, crop, interpolation, more, *, antialias=True) -> TransformSpec:
    return TransformSpec(resize, crop, interpolation, antialias, (), (), **more)


def session_of(spec: TransformSpec) -> onnxruntime.InferenceSession:
    nodes = Nodes()
    nodes.add("Identity", add_transform(nodes, "image", spec), name="pixels")
    model = nodes.model(
        "resizing",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["H", "W", 3])],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 3, spec.crop, spec.crop])],
    )
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize(
    "spec", [spec_of(*each) for each in SPECS], ids=lambda spec: f"{spec.interpolation}-{spec.fit}"
)
def test_a_graph_resizes_to_the_pixels_of_the_transform(spec):
    session, random = session_of(spec), np.random.default_rng(0)
    for height, width in SIZES:
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if height % 2:  # the largest steps overshoot the range of a pixel
            image = np.where(image > 127, 255, 0).astype(np.uint8)
        (found,) = session.run(None, {"image": image})
        assert np.array_equal(found[0], fit_pixels(image.transpose(2, 0, 1), spec)), (height, width)


def test_resizing_without_antialiasing_has_no_graph_and_says_so():
    with pytest.raises(EngineError, match="bilinear resizing without antialiasing has no exact graph"):
        add_transform(Nodes(), "image", spec_of(*SPECS[0], antialias=False))
