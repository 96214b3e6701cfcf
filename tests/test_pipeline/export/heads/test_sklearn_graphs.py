"""Classifiers of scikit-learn as ONNX graphs: those that can be converted answer the same, others are refused."""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from featurecache.base.errors import UsageError
from featurecache.classify.evaluation.calibration import temper_head
from featurecache.classify.heads.table import build_head
from featurecache.export.heads.graph import head_graph
from featurecache.export.nodes import Nodes

D = 6
LINEAR = [
    "discriminant_analysis.LinearDiscriminantAnalysis",
    "linear_model.LogisticRegression",
    "linear_model.RidgeClassifier",
    "linear_model.Perceptron",
    "svm.LinearSVC",
]
CONVERTED = [
    "ensemble.RandomForestClassifier",
    "naive_bayes.GaussianNB",
    "neighbors.KNeighborsClassifier",
    "svm.SVC",
]


def rows_of(n_classes, n_rows, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n_rows)
    centres = np.random.default_rng(99).normal(size=(n_classes, D))
    return (centres[y] + rng.normal(size=(n_rows, D))).astype(np.float32), y


def check(name, n_classes):
    params = {"n_estimators": 10} if name.startswith("ensemble") else {}
    head = build_head(f"sklearn.{name}", **params).fit(*rows_of(n_classes, 120))
    X, _ = rows_of(n_classes, 200, seed=1)
    codes, proba = head.predict_both(X)
    for temperature in (1.0, 2.0):
        model = head_graph(head, n_features=D, temperature=temperature)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found, places = session.run(["probabilities", "codes"], {"features": X})
        # scikit-learn computes some in float32, from 1 less the other.
        np.testing.assert_allclose(found, temper_head(head, X, proba, temperature), rtol=1e-4, atol=2e-5)
        # A forest's votes can be equal but for rounding.
        assert (head.classes_[places] == codes).mean() >= 0.99


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_classifier_needs_no_converter(name, n_classes, monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    check(name, n_classes)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_classifier_answers_the_same(name, n_classes):
    pytest.importorskip("skl2onnx")
    check(name, n_classes)


def test_a_classifier_of_other_operators_is_part_of_a_larger_graph():
    pytest.importorskip("skl2onnx")
    head = build_head("sklearn.ensemble.RandomForestClassifier", n_estimators=3).fit(*rows_of(3, 60))
    nodes = Nodes()
    found = nodes.include(head_graph(head, n_features=D), {"features": nodes.add("Neg", "x")})
    given, taken = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", width])
        for name, width in (("x", D), (found["probabilities"], 3))
    )
    session = ort.InferenceSession(nodes.model("whole", [given], [taken]).SerializeToString())
    X, _ = rows_of(3, 40, seed=1)
    np.testing.assert_allclose(session.run(None, {"x": -X})[0], head.predict_proba(X), atol=1e-6)


def test_what_skl2onnx_cannot_convert_is_refused_in_a_sentence():
    pytest.importorskip("skl2onnx")
    head = build_head("sklearn.dummy.DummyClassifier").fit(*rows_of(3, 40))
    with pytest.raises(
        UsageError, match=r"^DummyClassifier cannot be exported \(.*\): choose another head with --head"
    ):
        head_graph(head, n_features=D)


def test_the_extra_is_named_where_skl2onnx_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    head = build_head("sklearn.tree.DecisionTreeClassifier").fit(*rows_of(3, 40))
    with pytest.raises(
        UsageError, match=r"needs skl2onnx, which is not installed: `pip install 'featurecache\[export\]'`"
    ):
        head_graph(head, n_features=D)
