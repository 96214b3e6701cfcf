"""A graph in a cache folder from a stranger: what reads other files, loops or is another network's never runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from prepared import run_program

from featurecache.base.user_folder import VARIABLE
from featurecache.extract.engines import graph_checks
from featurecache.extract.engines.graph_checks import bind_graph, graph_fault, graph_fault_once
from featurecache.extract.engines.graph_store import GraphFolder, Verdict
from featurecache.extract.engines.onnx_engine import OnnxEngine


@pytest.fixture
def secret(tmp_path) -> Path:
    """A file outside the cache, of which twelve bytes would be three weights."""
    path = tmp_path / "secret.bin"
    path.write_bytes(b"none of its business" * 20)
    return path


SIDE, BATCH = 8, 2
NETWORK = {"backbone": "toy", "weights": "00"}


def toy_graph(**changes) -> onnx.ModelProto:
    """uint8 (2, 3, 8, 8) -> float32 (2, 3): the mean of each channel, plus one."""
    sides = changes.get("sides", [BATCH, 3, SIDE, SIDE])
    images = helper.make_tensor_value_info(changes.get("name", "images"), changes.get("type", TensorProto.UINT8), sides)
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, [BATCH, changes.get("dim", 3)])
    nodes = [
        helper.make_node("Cast", [images.name], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("Add", ["m", "one"], ["features"]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    one = helper.make_tensor("one", TensorProto.FLOAT, [3], [1.0, 1.0, 1.0])
    graph = helper.make_graph(nodes, "toy", [images], [features], [axes, one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def reading_a_file(model, secret):
    """The weight that is added lies in a file outside, from its first byte on."""
    tensor = model.graph.initializer[1]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", str(secret)), ("offset", "0"), ("length", "12")):
        tensor.external_data.add(key=key, value=value)


def reading_a_file_in_a_constant(model, secret):
    node = model.graph.node.add(op_type="Constant", output=["c"])
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [3], [0.0] * 3)
    node.attribute.append(helper.make_attribute("value", tensor))
    node.attribute[0].t.data_location = TensorProto.EXTERNAL
    node.attribute[0].t.external_data.add(key="location", value=str(secret))


def an_operator_of_its_own(model, _):
    model.graph.node[2].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def a_function_of_its_own(model, _):
    model.functions.append(helper.make_function("mine", "f", ["a"], ["a"], [], [helper.make_opsetid("", 20)]))


def a_loop(model, _):
    body = helper.make_graph([], "body", [], [])
    node = model.graph.node.add(op_type="Loop", output=["never"])
    node.attribute.append(helper.make_attribute("body", body))


def bytes_of(model, identity=NETWORK) -> bytes:
    return bind_graph(model.SerializeToString(), identity)


def fault(graph: bytes, feature_dim: int | None = 3) -> str:
    return graph_fault(graph, NETWORK, batch_size=BATCH, side=SIDE, feature_dim=feature_dim)


def test_a_graph_of_ours_has_no_fault_and_runs():
    graph = bytes_of(toy_graph())
    assert fault(graph) == fault(graph, None) == ""
    engine = OnnxEngine(graph, side=SIDE, batch_size=BATCH, reason="")
    np.testing.assert_allclose(engine.run(torch.full((3, 3, SIDE, SIDE), 7, dtype=torch.uint8)), 8.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (reading_a_file, "its weights lie in another file"),
        (reading_a_file_in_a_constant, "its weights lie in another file"),
        (an_operator_of_its_own, "it has operators of 'com.microsoft'"),
        (a_function_of_its_own, "it defines functions"),
        (a_loop, "it has parts that are graphs themselves"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_graph_that_is_more_than_a_line_of_operators_is_refused(secret, change, reason):
    model = toy_graph()
    change(model, secret)
    assert fault(bytes_of(model)) == reason


@pytest.mark.parametrize(
    "change", [{"dim": 4}, {"sides": [BATCH, 3, 9, 9]}, {"sides": [1, 3, SIDE, SIDE]}, {"sides": ["B", 3, SIDE, SIDE]},
               {"type": TensorProto.FLOAT}, {"name": "other"}]
)  # fmt: skip
def test_a_graph_of_other_arrays_is_refused(change):
    assert fault(bytes_of(toy_graph(**change))) == "its inputs or outputs have another name, type or shape"


def test_a_graph_of_another_network_is_refused():
    for graph in (
        toy_graph().SerializeToString(),
        bytes_of(toy_graph(), {**NETWORK, "weights": "01"}),
        b"",
        b"no graph",
    ):
        assert fault(graph) in ("it was not made for this network", "it is no ONNX file")


def test_a_graph_in_a_cache_folder_never_makes_onnxruntime_read_another_file(tmp_path, secret):
    """In a process of its own: whatever ONNX Runtime might do. Its SHA-256 and identity are right."""
    code = (
        "import sys, json; from pathlib import Path; import torch\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from test_hostile_graphs import NETWORK, SIDE, BATCH, toy_graph, reading_a_file, bytes_of\n"
        "from featurecache.extract.engines import choice\n"
        "from featurecache.extract.engines.build import build_engine\n"
        "from featurecache.extract.engines.protocol import Source\n"
        "from featurecache.extract.engines.graph_store import GraphFolder, Verdict\n"
        "class Mean(torch.nn.Module):\n"
        "    def forward(self, x): return x.float().mean((2, 3)) + 1\n"
        "source = Source(NETWORK, SIDE, lambda: Mean().eval(), 3)\n"
        "identity = choice.full_identity(source, BATCH)\n"
        "choice.export_graph = lambda *_, **__: bytes_of(toy_graph(), identity)\n"
        "model = toy_graph(); reading_a_file(model, sys.argv[2])\n"
        "folder = GraphFolder(Path(sys.argv[1]))\n"
        "folder.save(identity, Verdict('onnxruntime', 1, 'x', {}, 0.0), bytes_of(model, identity))\n"
        "assert folder.find(identity) is not None\n"
        "asked = {'device': 'cpu', 'engine': 'onnxruntime', 'batch_size': BATCH}\n"
        "engine = build_engine(source, graphs=folder, say=print, **asked)\n"
        "print(engine.run(torch.full((2, 3, SIDE, SIDE), 7, dtype=torch.uint8)).tolist())\n"
    )
    done = run_program(code, tmp_path / "cache", secret, Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    assert "is not used: its weights lie in another file" in done.stdout
    assert done.stdout.splitlines()[-1] == str([[8.0] * 3] * 2)


@pytest.mark.parametrize(
    "values",
    [{"engine": "other"}, {"n_lanes": "2"}, {"reason": 3}, {"error": "x"}, {"more": 1}, {"engine": ["torch"]}],
)
def test_a_verdict_with_impossible_values_is_none(tmp_path, values):
    folder = GraphFolder(tmp_path)
    folder.save(NETWORK, Verdict("torch", 1, "slow\x1b[2J", {}, None), None)
    (path,) = tmp_path.iterdir()
    found = folder.find(NETWORK)
    assert found is not None
    assert found[0].reason == "slow\\x1b[2J"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "verdict": {**document["verdict"], **values}}))
    assert folder.find(NETWORK) is None
    path.write_text("[" * 100_000)
    assert folder.find(NETWORK) is None


def test_a_graph_that_passed_is_read_again_only_where_somebody_else_may_have_written_so(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "user"))
    graph, read = bytes_of(toy_graph()), []

    def checked(*asked, **sizes):
        read.append("read")
        return graph_fault(*asked, **sizes)

    monkeypatch.setattr(graph_checks, "graph_fault", checked)

    def n_read(graph, identity=NETWORK, **changes):
        read.clear()
        graph_fault_once(graph, identity, **{"batch_size": BATCH, "side": SIDE, "feature_dim": 3, **changes})
        return len(read)

    assert [n_read(graph) for _ in range(3)] == [1, 0, 0]
    hostile = toy_graph()
    a_loop(hostile, None)
    assert [n_read(bytes_of(hostile)) for _ in range(2)] == [1, 1]
    assert n_read(graph + b" ") == n_read(graph, {"backbone": "other"}) == n_read(graph, batch_size=1) == 1
    (tmp_path / "user").chmod(0o777)
    assert n_read(graph) == 1
    monkeypatch.setenv(VARIABLE, "")
    assert n_read(graph) == 1
