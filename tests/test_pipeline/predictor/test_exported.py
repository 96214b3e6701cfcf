"""A file of `export` is loaded like a run: its labels are those of the file, its images are decoded here."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from featurecache import Predictor, Settings, read_images
from featurecache.base.errors import EngineFailed, ImageRefused, PipelineError, UsageError
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.transform_spec import TransformSpec

TRANSFORM = TransformSpec(8, 8, "bilinear", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SPEC = FeatureSpec("pixels", "featurecache", "0" * 64, "pixels", "avg", TRANSFORM, 3, decode_version=1)


def written(path, *, side=None, **changed):
    """A file as `export` writes it, whose probabilities are the mean red, green and blue, and its label the largest."""
    size = ["H", "W"] if side is None else [side, side]
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "white"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=0, keepdims=0),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [0, 1]),
        helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
    ]
    graph = helper.make_graph(
        nodes,
        "featurecache",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [*size, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("label", TensorProto.INT64, []),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    said = {
        "format": "1",
        "head": "ridge on pixels",
        "classes": json.dumps(["red", "green", "blue"]),
        "features": json.dumps([{"key": SPEC.key, **SPEC.to_dict()}]),
    }
    for name, value in {**said, **changed}.items():
        if value is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = f"featurecache.{name}", value
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A red, a blue and a green image of different sizes, and a file that is none."""
    folder = tmp_path_factory.mktemp("colours")
    Image.new("RGB", (20, 10), (200, 0, 0)).save(folder / "a.png")
    Image.new("RGB", (9, 30), (0, 10, 100)).save(folder / "b.png")
    Image.new("RGBA", (8, 8), (0, 255, 0, 255)).save(folder / "c.png")
    (folder / "d.png").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize("side", [None, 8])
def test_its_labels_are_those_of_the_file(tmp_path, images, side):
    predictor = Predictor.load(written(tmp_path / "model.ONNX", side=side))
    assert (predictor.name, predictor.classes) == ("ridge on pixels", ["red", "green", "blue"])
    black = np.zeros((4, 4), np.uint8)
    items = [
        images / "a.png",
        (images / "b.png").read_bytes(),
        Image.open(io.BytesIO((images / "c.png").read_bytes())),
        black,
    ]
    assert predictor.predict_labels(items) == ["red", "blue", "green", "red"]
    np.testing.assert_allclose(
        predictor.predict_proba(items), [[200 / 255, 0, 0], [0, 10 / 255, 100 / 255], [0, 1, 0], [0, 0, 0]], atol=1e-6
    )
    codes, proba = predictor.answers(predictor.prepared(items))
    assert codes.tolist() == [0, 2, 1, 0]
    assert proba.shape == (4, 3)
    assert predictor.start() == ["onnxruntime on cpu: an exported file"]
    assert predictor.predict_proba([]).shape == (0, 3)


def test_a_data_set_is_labelled_and_what_is_refused_is_counted(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predictor = Predictor.load(written(tmp_path / "model.onnx"))
    found = predictor.predict(read_images(images))
    assert [row[:2] for row in found.rows()] == [("a.png", "red"), ("b.png", "blue"), ("c.png", "green")]
    assert [each.name for each in found.files.refusals] == ["d.png"]
    assert [len(block.samples) for block in predictor.label(read_images(images)).blocks(2)] == [2, 1]
    with pytest.raises(ImageRefused, match="Item 3"):
        predictor.predict(read_images(images), settings=Settings(on_error="fail"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_what_a_file_does_not_have_is_said(tmp_path, images):
    path = written(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="gives no features"):
        Predictor.load(path).features([images / "a.png"])
    with pytest.raises(UsageError, match="name no other head"):
        Predictor.load(path, head="ridge")
    with pytest.raises(UsageError, match="is no file"):
        Predictor.load(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"format": None}, "it does not say 'featurecache.format'"),
        ({"format": "2"}, "its format is of another version"),
        ({"classes": "3"}, "its classes are no list of names"),
        ({"features": "[]"}, "decoded by other rules"),
        ({"features": '[{"backbone": 3}]'}, "is no file of featurecache export"),
        ({"features": "{"}, "is no file of featurecache export"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, changed, reason):
    with pytest.raises(PipelineError, match=reason):
        Predictor.load(written(tmp_path / "model.onnx", **changed))


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(PipelineError, match="is no ONNX file"):
        Predictor.load(tmp_path / "model.onnx")


def changed(path, change):
    """A file with a change of its model."""
    model = onnx.load(written(path))
    change(model.graph)
    onnx.save(model, path)
    return path


def label_is(value, shape=()):
    def change(graph):
        graph.node.pop()
        graph.node.append(
            helper.make_node("Constant", [], ["label"], value=helper.make_tensor("", TensorProto.INT64, shape, [value]))
        )
        del graph.output[1].type.tensor_type.shape.dim[:]
        graph.output[1].type.tensor_type.shape.dim.extend(
            [onnx.TensorShapeProto.Dimension(dim_value=each) for each in shape]
        )

    return change


def white_is(value):
    return lambda graph: graph.initializer[1].CopyFrom(helper.make_tensor("white", TensorProto.FLOAT, [], [value]))


def four_classes(graph):
    graph.node[2].output[0] = "three"
    graph.node[3].input[0] = "three"
    graph.node.append(helper.make_node("Concat", ["three", "fourth"], ["probabilities"], axis=0))
    graph.initializer.append(helper.make_tensor("fourth", TensorProto.FLOAT, [1], [0.0]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [4]))


@pytest.mark.parametrize(
    "change",
    [label_is(-1), label_is(3), label_is(0, (1,)), white_is(0.0), four_classes],
    ids=["before the first", "after the last", "a list", "no number", "too many"],
)
def test_answers_that_are_none_are_refused(tmp_path, change):
    predictor = Predictor.load(changed(tmp_path / "model.onnx", change))
    with pytest.raises(EngineFailed, match="a probability for each of its 3 classes"):
        predictor.predict_labels([np.zeros((4, 4), np.uint8)])


def in_another_file(graph):
    tensor = graph.initializer[1]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secret"


def test_a_file_that_reads_another_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(np.float32(255).tobytes())
    path = written(tmp_path / "model.onnx")
    model = onnx.load(path)
    in_another_file(model.graph)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PipelineError, match="takes values from other files"):
        Predictor.load(path)


@pytest.mark.parametrize("shape", [[], [8, 8], [8, 8, 4], [9, 9, 3]])
def test_an_image_of_another_shape_is_refused(tmp_path, shape):
    def change(graph):
        graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.UINT8, shape))

    with pytest.raises(PipelineError, match=r"its image has another shape|ONNX Runtime does not take"):
        Predictor.load(changed(tmp_path / "model.onnx", change))


def test_what_is_no_file_is_said(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    for name in ("folder.onnx", "pipe.onnx"):
        with pytest.raises((UsageError, PipelineError)):
            Predictor.load(tmp_path / name)
