"""An exported file in a runtime of browsers: `npm install onnxruntime-web`, and NODE_PATH leads to node_modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from featurecache.export.export import export_model
from featurecache.predictor import Predictor

SCRIPT = Path(__file__).parents[2] / "tools" / "exported_web.cjs"
PACKAGE = "onnxruntime-web"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    folders = os.environ.get("NODE_PATH", "").split(os.pathsep)
    if found is None or not any(Path(folder, PACKAGE).is_dir() for folder in folders if folder):
        pytest.skip(f"needs node, and a folder in NODE_PATH that has {PACKAGE}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("head", ["logistic", "ensemble"])
def test_a_file_answers_in_a_browsers_runtime_as_predict_does(node, pixels_run, tmp_path, head):
    path = export_model(pixels_run, tmp_path / "model.onnx", head=head).path
    images = np.random.default_rng(0).integers(0, 256, (5, 60, 83, 3), dtype=np.uint8)
    done = subprocess.run([node, SCRIPT, path, "60", "83"], input=images.tobytes(), stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    predictor = Predictor.load(pixels_run, head=head)
    np.testing.assert_allclose(found["probabilities"], predictor.predict_proba(list(images)), atol=1e-5)
    assert [predictor.classes[label] for label in found["labels"]] == predictor.predict_labels(list(images))
