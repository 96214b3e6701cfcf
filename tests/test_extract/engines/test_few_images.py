"""Few images are computed one by one where that gives the bits of a batch, and as a batch where it does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from featurecache.base.errors import EngineError
from featurecache.extract.engines import few_images
from featurecache.extract.engines.few_images import OTHER_BITS
from featurecache.extract.engines.onnx_engine import OnnxEngine

BATCH, SIDE, CHANNELS, DIM = 4, 8, 8, 5
N_CELLS = (SIDE - 2) ** 2


def graph(*more, result="rows", shape=(BATCH, -1), batch_size=BATCH) -> bytes:
    """A convolution whose maps are reshaped to `shape` and multiplied; more: nodes from `rows` to `result`."""
    rng = np.random.default_rng(0)
    constants = {
        "kernel": rng.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32),
        "shape": np.array(shape, np.int64),
        "matrix": rng.normal(size=(CHANNELS * N_CELLS, DIM)).astype(np.float32),
        "axes": np.array([0], np.int64),
        "all": np.array([-1], np.int64),
        "places": np.arange(batch_size * CHANNELS * N_CELLS).reshape(batch_size, -1),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "kernel"], ["maps"]),
        helper.make_node("Reshape", ["maps", "shape"], ["flat"]),
        helper.make_node("Reshape", ["flat", "all"], ["numbers"]),
        helper.make_node("Gather", ["numbers", "places"], ["picked"]),  # as torch exports its adaptive pooling
        helper.make_node("MatMul", ["picked", "matrix"], ["rows"]),
        *more,
        helper.make_node("Identity", [result], ["features"]),
    ]
    body = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch_size, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch_size, DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def engine(content: bytes, batch_size=BATCH) -> OnnxEngine:
    return OnnxEngine(content, side=SIDE, batch_size=batch_size, reason="asked for")


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """An image takes a second, whatever else is running."""
    monkeypatch.setattr(few_images, "_timed", lambda run, images: (run(images), float(len(images))))


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (BATCH, 3, SIDE, SIDE), dtype=np.uint8)


def sizes_of(made: OnnxEngine, monkeypatch) -> list[int]:
    """Note the sizes of what an engine computes from now on."""
    sizes, run = [], made._run_in
    monkeypatch.setattr(made, "_run_in", lambda session, batch: sizes.append(len(batch)) or run(session, batch))
    return sizes


@pytest.mark.parametrize("more", [{}, {"shape": (-1, CHANNELS * N_CELLS)}])
def test_few_images_are_computed_one_by_one_to_the_same_bits(images, monkeypatch, more):
    made = engine(graph(**more))
    whole, sizes = made.run(images), sizes_of(made, monkeypatch)
    assert made.prepare_few() == ""
    sizes.clear()
    for n in range(1, BATCH + 1):
        assert np.array_equal(made.run(images[:n]), whole[:n])
    assert sizes == [1, 1, 1, 1, 1, 1, BATCH]
    assert made.run(images[:0]).shape == (0, DIM)
    with pytest.raises(EngineError, match="takes uint8"):
        made.run(images[:1].astype(np.float32))


def test_next_to_another_lane_an_image_has_the_threads_of_its_own_lane(images, monkeypatch):
    made = engine(graph())
    assert made.prepare_few() == ""
    whole, used = made.run(images), []
    for name in ("_on_all", "_on_own"):
        run = getattr(made._few, name)
        monkeypatch.setattr(made._few, name, lambda batch, name=name, run=run: used.append(name) or run(batch))
    made.run(images[:1])
    with made._counted() as is_alone:
        assert is_alone
        assert np.array_equal(made.run(images[:1]), whole[:1])
    made.run(images[:1])
    assert used == ["_on_all", "_on_own", "_on_all"]


def test_where_an_image_depends_on_its_batch_it_stays_a_batch(images, monkeypatch):
    nodes = (
        helper.make_node("ReduceMean", ["rows", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["rows", "mean"], ["centred"]),
    )
    made = engine(graph(*nodes, result="centred"))
    assert made.prepare_few() == OTHER_BITS
    sizes = sizes_of(made, monkeypatch)
    made.run(images[:1])
    assert sizes == [BATCH]


def test_a_graph_that_is_none_for_one_image_is_left_as_it_is(images):
    numbers = numpy_helper.from_array(np.ones((BATCH, DIM), np.float32), "ones")
    content = onnx.load_model_from_string(graph(helper.make_node("Add", ["rows", "ones"], ["more"]), result="more"))
    content.graph.initializer.append(numbers)
    made = engine(content.SerializeToString())
    whole = made.run(images)
    assert made.prepare_few() != ""
    assert np.array_equal(made.run(images[:1]), whole[:1])


def test_where_one_image_takes_as_long_as_a_batch_nothing_is_changed(images, monkeypatch):
    monkeypatch.setattr(few_images, "_timed", lambda run, images: (run(images), 1.0 + (len(images) == 1)))
    made = engine(graph())
    assert made.prepare_few() == ""
    assert made._few is None


def test_large_weights_are_not_held_twice_and_batches_of_one_are_as_they_are(monkeypatch):
    assert engine(graph(shape=(1, -1), batch_size=1), batch_size=1).prepare_few() == ""
    monkeypatch.setattr(few_images, "MOST_BYTES", 1000)
    assert engine(graph()).prepare_few() == "its weights have more than 0 MB"


def test_the_shape_of_weights_is_not_changed():
    content = onnx.load_model_from_string(graph())
    weights = helper.make_node("Reshape", ["kernel", "of weights"], ["kernel again"])
    content.graph.node.insert(0, weights)
    content.graph.initializer.append(numpy_helper.from_array(np.array([8, 27], np.int64), "of weights"))
    changed = onnx.load_model_from_string(few_images.graph_for_one(content.SerializeToString(), BATCH))
    shapes = {each.name: numpy_helper.to_array(each).tolist() for each in changed.graph.initializer}
    assert (shapes["shape"], shapes["of weights"]) == ([1, -1], [8, 27])
