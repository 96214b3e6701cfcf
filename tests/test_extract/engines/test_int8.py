"""Measured ranges fit a graph whatever its tensors are called; a network that int8 does not suit is refused."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from featurecache.base.errors import EngineError, EngineFailed
from featurecache.extract.cache.ranges import Ranges
from featurecache.extract.engines import exact_products, int8
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.calibration import calibrate, quantise
from featurecache.extract.engines.calibration_pictures import N_PICTURES, calibration_pictures
from featurecache.extract.engines.exact_products import (
    CONVOLUTIONS,
    SETTING,
    convolution,
    largest_is_exact,
    make_products_exact,
)
from featurecache.extract.engines.export import export_graph
from featurecache.extract.engines.graph_checks import bind_graph, graph_fault
from featurecache.extract.engines.graph_store import GraphFolder
from featurecache.extract.engines.int8 import build_int8_engine, mean_cosine, measure_ranges
from featurecache.extract.engines.onnx_engine import BATCH_SIZE, OnnxEngine
from featurecache.extract.engines.protocol import Source

SIDE = 24


class Small(nn.Module):
    """A network with a residual sum, a squeeze and a pooling."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 1, groups=8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.stem(images.float() / 255 - 0.5).relu()
        return self.last((self.body(first) + first).relu()).mean((2, 3))


def source(module: nn.Module | None = None, graph: bytes | None = None) -> Source:
    network = (module or Small()).eval().requires_grad_(False)
    exported = {} if graph is None else {BATCH_SIZE: graph}
    return Source({"backbone": "small", "weights": "00"}, SIDE, lambda: network, 8, (), exported)


@pytest.fixture(scope="module")
def graph() -> bytes:
    """The network, exported once."""
    return export_graph(source().load(), batch_size=BATCH_SIZE, side=SIDE)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return calibration_pictures(SIDE)


@pytest.fixture(scope="module")
def ranges(graph, pictures) -> Ranges:
    return calibrate(graph, pictures)


def renamed(graph: bytes) -> bytes:
    """The graph with other names of all tensors and nodes, as another exporter could choose."""
    model = onnx.load_model_from_string(graph)
    fixed = {each.name for each in (*model.graph.input, *model.graph.output)} | {""}

    def other(name: str) -> str:
        return name if name in fixed else f"t_{sha256(name.encode()).hexdigest()[:8]}"

    for node in model.graph.node:
        names = [other(name) for name in node.input], [other(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(names[0])
        node.output.extend(names[1])
        node.name = f"n_{node.name}"
    for each in (*model.graph.initializer, *model.graph.value_info):
        each.name = other(each.name)
    return model.SerializeToString()


def with_outliers(graph: bytes) -> bytes:
    """The graph with some weights 10,000 times as large: one channel of a product, and all others of the next one."""
    model = onnx.load_model_from_string(graph)
    weights = {each.name: each for each in model.graph.initializer}
    for name, rows in (("body.weight", slice(1)), ("last.weight", slice(1, None))):
        values = numpy_helper.to_array(weights[name]).copy()
        values[rows] *= 1e4
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    return model.SerializeToString()


def without_products() -> bytes:
    """A graph without weights, uint8 (B, 3, S, S) -> float32 (B, 3): the mean of each channel."""
    images = onnx.helper.make_tensor_value_info("images", TensorProto.UINT8, [BATCH_SIZE, 3, SIDE, SIDE])
    features = onnx.helper.make_tensor_value_info("features", TensorProto.FLOAT, [BATCH_SIZE, 3])
    nodes = [
        onnx.helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["real", "axes"], ["features"], keepdims=0),
    ]
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    body = onnx.helper.make_graph(nodes, "means", [images], [features], [axes])
    made = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return made.SerializeToString()


def vectors(graph: bytes, images: np.ndarray) -> np.ndarray:
    engine = OnnxEngine(graph, side=SIDE, batch_size=BATCH_SIZE, reason="", precision="int8")
    return engine.run(torch.from_numpy(images))


# The pictures


def test_the_pictures_are_the_same_bits_on_every_machine(pictures):
    assert (pictures.shape, pictures.dtype) == ((N_PICTURES, 3, SIDE, SIDE), np.uint8)
    assert sha256(pictures.tobytes()).hexdigest()[:16] == "ed4df611b7c2c702"


def test_the_pictures_vary_and_have_black_and_white(pictures):
    assert len(np.unique(pictures.reshape(N_PICTURES, -1), axis=0)) == N_PICTURES
    assert (pictures.min(), pictures.max()) == (0, 255)
    assert pictures.mean(axis=(1, 2, 3)).max() > 150


# Ranges and graphs


def test_every_range_holds_0_and_a_second_measurement_gives_the_same_digest(ranges, graph, pictures):
    assert [each.operator for each in ranges.tensors].count("Conv") == 3
    assert all(each.low <= 0 <= each.high and each.low < each.high for each in ranges.tensors)
    assert calibrate(graph, pictures[::-1].copy()).digest == ranges.digest


def test_pixels_from_a_negative_to_the_same_positive_do_not_lie_between_two_steps(ranges):
    """Black and white lie on steps of the normalised image, and nothing half-way."""
    first = ranges.tensors[0]
    assert (first.low, first.high) == (-0.5, pytest.approx(0.5 * 128 / 127))
    steps = (np.arange(256) - 127.5) / (first.high - first.low)
    assert abs(steps - np.rint(steps))[[0, -1]].max() < 1e-9
    assert abs(steps - np.floor(steps) - 0.5).min() > 1e-3


def test_the_digest_does_not_depend_on_differences_of_another_processor(ranges, graph, pictures):
    noisy = onnx.load_model_from_string(graph)
    for each in noisy.graph.initializer:
        if each.data_type == TensorProto.FLOAT:
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each) * np.float32(1 + 1e-7), each.name))
    assert calibrate(noisy.SerializeToString(), pictures).digest == ranges.digest


def test_the_graph_in_int8_gives_nearly_the_vectors_of_fp32_and_passes_the_checks_of_stored_graphs(
    ranges, graph, pictures
):
    quantised = quantise(graph, ranges)
    kinds = {node.op_type for node in onnx.load_model_from_string(quantised).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert 0.995 < mean_cosine(vectors(quantised, pictures), vectors(graph, pictures)) < 1
    bound = bind_graph(quantised, {"backbone": "small"})
    assert graph_fault(bound, {"backbone": "small"}, batch_size=BATCH_SIZE, side=SIDE, feature_dim=8) == ""


def test_features_keep_more_than_8_bits(ranges, graph, pictures):
    assert len(np.unique(vectors(quantise(graph, ranges), pictures)[:, 0])) >= N_PICTURES // 3


def test_ranges_of_a_graph_fit_the_same_graph_with_other_names_and_give_the_same_bits(ranges, graph, pictures):
    other = renamed(graph)
    assert calibrate(other, pictures).digest == ranges.digest
    assert np.array_equal(vectors(quantise(other, ranges), pictures), vectors(quantise(graph, ranges), pictures))


@pytest.mark.parametrize("change", ["an operator", "the weights", "one tensor less"])
def test_ranges_of_another_graph_are_refused_in_a_sentence(change, ranges, graph):
    tensors = list(ranges.tensors)
    if change == "an operator":
        tensors[2] = tensors[2]._replace(operator="HardSwish")
    elif change == "the weights":
        tensors[1] = tensors[1]._replace(weight=tensors[1].weight * 1.01)
        assert tensors[1].weight > 0
    else:
        del tensors[-1]
    with pytest.raises(
        EngineFailed, match=r"^small cannot run in int8: the activation ranges .* another graph: .* Use"
    ):
        build_int8_engine(source(graph=graph), Ranges(tuple(tensors)), batch_size=None, graphs=None, say=print)


# The engine


def test_an_engine_says_what_it_does_and_takes_the_stored_graph_the_second_time(ranges, graph, tmp_path, pictures):
    said: list[str] = []
    options = {"batch_size": None, "graphs": GraphFolder(tmp_path), "say": said.append}
    first = build_int8_engine(source(graph=graph), ranges, **options)
    assert (first.name, first.device, first.precision) == ("onnxruntime", "cpu", "int8")
    assert first.reason.startswith("onnxruntime on cpu in int8: asked for; mean cosine to fp32 ")
    assert said == ["Preparing small in int8 for this machine, once: quantising its graph and comparing it with fp32"]

    def never() -> nn.Module:
        pytest.fail("the network was loaded")

    again = Source({"backbone": "small", "weights": "00"}, SIDE, never, 8)
    second = build_int8_engine(again, ranges, **options)
    assert len(said) == 1
    assert second.reason == first.reason
    images = torch.from_numpy(pictures[:5])
    assert np.array_equal(second.run(images), first.run(images))


def test_a_stored_graph_of_other_ranges_is_not_used(ranges, graph, tmp_path):
    wider = Ranges(tuple(each._replace(high=each.high * 1.25) for each in ranges.tensors))
    said: list[str] = []
    for each in (ranges, wider):
        build_int8_engine(source(graph=graph), each, batch_size=None, graphs=GraphFolder(tmp_path), say=said.append)
    assert len(said) == 2


def test_a_network_that_int8_does_not_suit_is_refused_with_its_cosine(graph):
    with pytest.raises(
        EngineFailed,
        match=r"^small does not suit int8: the mean cosine of its features to those in fp32 is 0\.\d+ on 48 pictures, "
        r"and has to be 0\.98 or more\. Use --precision fp32\.$",
    ):
        build_engine(source(graph=with_outliers(graph)), precision="int8")


def test_planted_ranges_that_spoil_the_vectors_are_refused(ranges, graph):
    planted = Ranges(tuple(each._replace(low=0.0, high=1e-3) for each in ranges.tensors))
    with pytest.raises(EngineFailed, match="does not suit int8"):
        build_int8_engine(source(graph=graph), planted, batch_size=None, graphs=None, say=print)


def test_a_network_without_products_is_refused():
    with pytest.raises(EngineFailed, match=r"^small cannot run in int8: it has no convolution and no matrix product\."):
        measure_ranges(source(graph=without_products()), lambda _: None)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"engine": "torch"}, "The engine torch does not run int8. Use --engine onnxruntime"),
        ({"device": "cuda"}, "int8 runs on the CPU, not on cuda. Use --device cpu"),
        ({"device": "mps"}, "int8 runs on the CPU, not on mps. Use --device cpu"),
    ],
)
def test_int8_is_for_onnxruntime_on_the_cpu(asked, sentence):
    with pytest.raises(EngineError, match=f"^{sentence}"):
        build_engine(source(), precision="int8", **asked)


@pytest.mark.parametrize(
    ("ours", "theirs", "cosine"),
    [
        ([[3.0, 4.0]], [[6.0, 8.0]], 1.0),
        ([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]], 0.5),
        ([[0.0, 0.0]], [[1.0, 0.0]], 0.0),
    ],
)
def test_the_mean_cosine_of_rows_by_hand(ours, theirs, cosine):
    assert mean_cosine(np.array(ours, np.float32), np.array(theirs, np.float32)) == pytest.approx(cosine)


def test_a_vector_that_is_not_finite_is_not_similar_to_anything():
    assert not mean_cosine(np.array([[np.inf, 1]], np.float32), np.array([[1, 1]], np.float32)) >= int8.LEAST_COSINE


# Products


@pytest.mark.parametrize(("shape", "groups"), [((16, 32, 1, 1), 1), ((16, 16, 3, 3), 1), ((16, 1, 3, 3), 16)])
def test_products_of_the_largest_values_do_not_saturate_on_this_processor(shape, groups):
    """Weights of 8 bits times activations near 255, whose sums of two exceed 16 bits; against exact integers."""
    random = np.random.default_rng(0)
    weights = random.choice(np.array([-127, 127], np.int8), shape)
    x = random.integers(200, 256, (1, shape[1] * groups, 7, 7), dtype=np.uint8)
    step = np.float32(2.0 ** np.ceil(np.log2(np.prod(shape[1:]) ** 0.5 * 127)))
    exact = nn.functional.conv2d(*(torch.from_numpy(each).double() for each in (x, weights)), groups=groups)
    options = onnxruntime.SessionOptions()
    make_products_exact(options)
    model = convolution(weights, groups, step, x.shape)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    assert np.array_equal(found, np.clip(np.rint(exact.numpy() / step), 0, 255).astype(np.uint8))


@pytest.mark.parametrize(("shape", "groups"), CONVOLUTIONS)
def test_the_setting_makes_the_largest_products_exact(shape, groups):
    assert largest_is_exact(shape, groups, is_set=True)


@pytest.mark.parametrize("is_exact", [True, False])
def test_the_setting_is_for_processors_whose_products_saturate(is_exact, monkeypatch):
    monkeypatch.setattr(exact_products, "products_are_exact", lambda: is_exact)
    options = onnxruntime.SessionOptions()
    make_products_exact(options)
    if is_exact:
        with pytest.raises(RuntimeError, match="configuration with key"):
            options.get_session_config_entry(SETTING[0])
    else:
        assert options.get_session_config_entry(SETTING[0]) == SETTING[1]


def test_an_engine_in_fp32_does_not_try_products(graph, monkeypatch):
    monkeypatch.setattr(exact_products, "products_are_exact", lambda: pytest.fail("products were tried"))
    OnnxEngine(graph, side=SIDE, batch_size=BATCH_SIZE, reason="")


def test_ranges_are_plain_json(ranges):
    assert Ranges.from_list(json.loads(json.dumps(ranges.tensors))).digest == ranges.digest
