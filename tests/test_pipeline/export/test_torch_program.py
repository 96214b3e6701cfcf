"""A head and its network as a program of torch.export, and heads as modules of torch."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import torch

from featurecache.base.errors import PipelineError, UsageError
from featurecache.classify.evaluation.calibration import temper_head
from featurecache.classify.heads.table import build_head
from featurecache.export import torch_program
from featurecache.export.export import export_model
from featurecache.export.torch_heads import TorchHead
from featurecache.extract.images.read import read_images
from featurecache.predictor import Predictor

D = 8
HEADS = [
    ("logistic", {}),
    ("lda", {"temperature": 1.5}),
    ("naive_bayes", {"temperature": 3.0}),
    ("mlp", {"epochs": 2, "hidden": 16, "temperature": 0.7}),
    ("rbf_svm", {"method": "exact", "temperature": 1.3}),
    ("rbf_svm", {"method": "nystroem", "n_landmarks": 30}),
]


def rows_of(n_classes, n_rows, seed):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n_rows - n_classes)])
    centres = np.random.default_rng(99).normal(size=(n_classes, D))
    return (centres[y] + rng.normal(size=(n_rows, D))).astype(np.float32), y


@pytest.mark.parametrize(("name", "params"), HEADS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(HEADS)])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_head_and_its_module_answer_the_same(name, params, n_classes):
    head = build_head(name, **params).fit(*rows_of(n_classes, 120, 0))
    X, _ = rows_of(n_classes, 80, 1)
    for temperature, floor in ((1.0, 0.0), (2.0, 0.0), (2.0, 1e-3)):
        wanted = temper_head(head, X, head.predict_proba(X), temperature, floor=floor)
        with torch.inference_mode():
            found = TorchHead(head, temperature=temperature, floor=floor)(torch.from_numpy(X)).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_head_that_torch_cannot_hold_is_refused():
    head = build_head("knn").fit(*rows_of(3, 30, 0))
    with pytest.raises(UsageError, match=r"^A program of torch cannot hold this head \(KNNHead\): name another"):
        TorchHead(head, temperature=1.0, floor=0.0)


def test_a_program_answers_as_predict_does_for_batches_of_any_size(pixels_run, digits_folder, tmp_path):
    exported = export_model(pixels_run, tmp_path / "model.pt2", head="logistic", format="torch")
    assert exported.same == exported.n == 90
    found = {"featurecache.json": ""}
    module = torch.export.load(exported.path, extra_files=found).module()
    predictor = Predictor.load(pixels_run, head="logistic")
    assert json.loads(found["featurecache.json"])["classes"] == predictor.classes
    expected = predictor.predict(read_images(str(digits_folder)))
    side = predictor.spec.transform.crop
    for n in (1, 2, 5, 90):
        assert module(torch.zeros((n, 3, side, side), dtype=torch.uint8)).shape == (n, len(expected.classes))
    assert exported.n_bytes == exported.path.stat().st_size


def test_a_program_holds_no_pickle(pixels_run, tmp_path):
    exported = export_model(pixels_run, tmp_path / "model.pt2", head="ridge", format="torch")
    with zipfile.ZipFile(io.BytesIO(exported.path.read_bytes())) as file:
        starts = {name: file.read(name)[:2] for name in file.namelist()}
    assert not [name for name, start in starts.items() if name.endswith((".pkl", ".pickle")) or start == b"\x80\x02"]


def test_a_program_that_disagrees_is_not_written(pixels_run, tmp_path, monkeypatch):
    fitted = torch_program.fitted
    monkeypatch.setattr(torch_program, "fitted", lambda image, spec: 255 - fitted(image, spec))
    with pytest.raises(PipelineError, match=r"^The program does not agree with predict, so it is not written: \d+ of"):
        export_model(pixels_run, tmp_path / "model.pt2", head="logistic", format="torch")
    assert not list(tmp_path.iterdir())
