"""Libraries report nothing to their makers."""

import os
import subprocess
import sys

import onnx
from onnx import TensorProto, helper

SESSION = """
import sys
import featurecache
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1])
"""


def test_onnx_runtime_keeps_no_device_id_and_no_events(tmp_path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, tmp_path / "relu.onnx")
    home = tmp_path / "home"
    home.mkdir()
    # In CI and after the import of the package by this process it would be silent of itself.
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    kept |= {"HOME": str(home), "XDG_CACHE_HOME": str(home)}
    subprocess.run([sys.executable, "-c", SESSION, str(tmp_path / "relu.onnx")], env=kept, check=True)
    assert list(home.rglob("*")) == []
