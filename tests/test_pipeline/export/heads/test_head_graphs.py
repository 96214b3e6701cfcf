"""Every head as an ONNX graph says what it says itself: under onnxruntime, on rows that it has not seen."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from featurecache.base.errors import UsageError
from featurecache.classify.evaluation.calibration import temper_head
from featurecache.classify.heads.table import build_head
from featurecache.export.heads.graph import head_graph

D = 12
# Settings of heads of the table: every kind of arithmetic, and its options.
HEADS = [
    ("logistic", {}),
    ("ridge", {"temperature": 0.2}),
    ("linear_svm", {}),
    ("lda", {"temperature": 1.5}),
    ("centroid", {"metric": "cosine"}),
    ("naive_bayes", {"temperature": 3.0}),
    ("mlp", {"epochs": 3, "hidden": 16, "temperature": 0.7}),
    ("rbf_svm", {"method": "exact", "temperature": 1.3}),
    ("rbf_svm", {"method": "nystroem", "n_landmarks": 40}),
    ("knn", {"k": 5}),
    ("knn", {"k": 7, "metric": "euclidean", "sharpness": 0.1, "temperature": 0.6}),
    ("knn", {"k": 7, "metric": "cosine", "sharpness": 0.03, "class_weight": "balanced"}),
    ("knn", {"k": 1000, "metric": "euclidean"}),
]
NAMES = [f"{name}{'-'.join(map(str, ['', *params.values()]))}" for name, params in HEADS]


def rows_of(n_classes, n_rows, *, seed=0, dtype=np.float32):
    """Rows (N, D) of classes that overlap, and their labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(n_classes, D))
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n_rows - n_classes)])
    return (centres[y] + rng.normal(size=(n_rows, D)) + 0.5).astype(dtype), y


def fitted(name, params, n_classes, *, dtype=np.float32, n_rows=160):
    return build_head(name).set_params(**params).fit(*rows_of(n_classes, n_rows, dtype=dtype))


def run(model, **features):
    """The outputs of a model by name."""
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, features)
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


def check(head, X, *, temperature=1.0, floor=0.0, near=2e-5):
    """Asserts that the graph of a head gives its labels and tempered probabilities of X, by relative error."""
    codes, proba = head.predict_both(X)
    wanted = temper_head(head, X, proba, temperature, floor=floor)
    found = run(head_graph(head, n_features=X.shape[1], temperature=temperature, floor=floor), features=X)
    assert found["probabilities"].dtype == np.float32
    np.testing.assert_allclose(found["probabilities"], wanted, rtol=near, atol=near * 1e-2)
    assert (head.classes_[found["codes"]] == codes).all()


@pytest.mark.parametrize(("name", "params"), HEADS, ids=NAMES)
@pytest.mark.parametrize("n_classes", [2, 6])
def test_a_head_and_its_graph_answer_the_same(name, params, n_classes):
    head = fitted(name, params, n_classes)
    X, _ = rows_of(n_classes, 300, seed=1)
    check(head, X)
    check(head, X[:1], temperature=1.7)


@pytest.mark.parametrize("name", ["logistic", "mlp", "knn", "rbf_svm"])
@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_a_graph_is_tempered_as_the_head_is(name, floor):
    check(
        fitted(name, {"epochs": 3} if name == "mlp" else {}, 4), rows_of(4, 50, seed=2)[0], temperature=2.5, floor=floor
    )


@pytest.mark.parametrize("name", ["logistic", "naive_bayes", "rbf_svm", "knn", "mlp"])
def test_a_head_of_float64_answers_rows_of_float32_the_same(name):
    head = fitted(name, {"epochs": 3} if name == "mlp" else {}, 3, dtype=np.float64)
    check(head, rows_of(3, 60, seed=3)[0])


@pytest.mark.parametrize("name", ["logistic", "rbf_svm", "knn", "lda"])
def test_columns_are_the_classes_that_the_head_has(name):
    X, y = rows_of(4, 120)
    head = build_head(name).fit(X[y != 1], y[y != 1])
    assert head.classes_.tolist() == [0, 2, 3]
    check(head, rows_of(4, 60, seed=4)[0])


@pytest.mark.parametrize("name", ["rbf_svm", "logistic", "knn", "naive_bayes"])
def test_many_classes(name):
    check(fitted(name, {}, 40, n_rows=300), rows_of(40, 100, seed=5)[0], near=1e-4)


def test_a_kernel_with_large_coefficients_far_from_the_origin_answers_as_its_head():
    X, y = rows_of(6, 300)
    head = build_head("rbf_svm").set_params(C=1000.0, gamma=0.06, method="exact").fit(X + 50, y)
    assert np.abs(head.coef_).max() > 100
    check(head, rows_of(6, 200, seed=10)[0] + 50)


def test_rows_of_zeros_by_cosine_and_rows_that_count_more_than_once():
    X, y = rows_of(3, 80)
    X[[2, 5, 9]] = 0.0
    weights = np.where(np.arange(80) % 3 == 0, 2.0, 1.0)
    new = np.concatenate([rows_of(3, 20, seed=6)[0], np.zeros((2, D), np.float32)])
    for k in (2, 7, 79, 200):
        for sample_weight in (None, weights):
            check(build_head("knn").set_params(k=k).fit(X, y, sample_weight=sample_weight), new)


def test_of_equally_near_rows_the_first_vote():
    X = np.repeat(np.eye(4, D, dtype=np.float32), 5, axis=0)
    head = build_head("knn").set_params(k=2, metric="euclidean").fit(X, np.tile([1, 0, 0, 1, 0], 4))
    check(head, np.eye(4, D, dtype=np.float32) * 2)


def test_rows_of_float16_are_compared_in_float32():
    head = build_head("knn").set_params(k=3).fit(*rows_of(3, 90, dtype=np.float16))
    assert head.rows_.dtype == np.float16
    check(head, rows_of(3, 40, seed=7)[0])


def test_probabilities_far_apart_are_not_lost():
    head = fitted("logistic", {"C": 1e5}, 3)
    X = rows_of(3, 40, seed=8)[0] * 1000
    check(head, X)
    check(head, X, temperature=50.0, near=1e-4)


def test_only_standard_operators_are_used():
    for name, params in HEADS:
        model = head_graph(fitted(name, params, 3), n_features=D)
        assert [each.domain for each in model.opset_import] == [""]
        assert {node.domain for node in model.graph.node} == {""}


def test_a_head_larger_than_an_onnx_file_is_refused():
    head = fitted("knn", {}, 2)
    head.rows_ = np.broadcast_to(np.float32(0.0), (10**6, 1000))
    with pytest.raises(UsageError, match=r"keeps 4\.0 GB of numbers, and an ONNX file holds at most 2\.1 GB"):
        head_graph(head, n_features=1000)
