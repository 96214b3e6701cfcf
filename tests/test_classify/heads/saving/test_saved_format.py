"""Heads as format 1 has them on the disk, written byte by byte: whatever `save_head` does later, these must be read."""

import json
import struct
from hashlib import sha256
from math import exp

import numpy as np
import pytest

from featurecache.classify.heads.saving.folder import load_fitted, load_head
from featurecache.classify.heads.table import HEADS

KINDS = {"float32": "F32", "float64": "F64", "int64": "I64"}
EYE = np.eye(2, dtype=np.float32)
# The row that every head is asked about.
X = np.array([[2.0, 1.0]])
TEXT = {"text": ["cat", "dog"], "dtype": "str"}
LINEAR = {"n_features_in_": 2, "classes_": TEXT, "n_iter_": 3, "slope_": 1e-3, "converged_": True, "note_": ""}
SCORED = {"n_features_in_": 2, "classes_": TEXT, "converged_": True, "note_": ""}
WEIGHTS = {"coef_": EYE, "intercept_": np.array([0.0, 0.5], dtype=np.float32)}
KERNEL = {"origin_": EYE.sum(axis=0), "support_vectors_": np.zeros((1, 2), dtype=np.float32)}
SVM = {"C": 10.0, "class_weight": None, "gamma": 0.5, "n_landmarks": 1000, "random_state": 0, "temperature": 1.0}
MLP = {"batch_size": 256, "device": "cpu", "dropout": 0.5, "epochs": 1, "hidden": 2, "learning_rate": 0.001,
       "patience": 2, "random_state": 0, "weight_decay": 0.01}  # fmt: skip


def share(log_odds):
    return 1.0 / (1.0 + exp(-log_odds))


def f32(*rows):
    return np.array(rows, dtype=np.float32)


# name: parameters, learned values, arrays, probability of the first class.
GOLDEN = {
    "logistic": ({"C": 0.01, "class_weight": None, "max_iter": 500, "tol": None}, LINEAR, WEIGHTS, share(0.5)),
    "ridge": ({"alpha": 1000.0, "class_weight": None, "temperature": 0.5}, LINEAR, WEIGHTS, share(1.0)),
    "linear_svm": (
        {"C": 0.001, "class_weight": "balanced", "max_iter": 500, "temperature": 0.25, "tol": None},
        LINEAR | {"slope_": None, "converged_": False, "note_": "C=0.001: stopped after 500 steps, slope inf."},
        WEIGHTS,
        share(2.0),
    ),
    "rbf_svm": (
        SVM | {"method": "auto"},
        SCORED | {"method_": "exact", "gamma_": 0.5},
        KERNEL | {"coef_": f32([2.0]), "intercept_": f32(0.0)},
        # A decision is positive for the second class, and stands for odds of exp(5 decision).
        share(-5.0 * 2.0 * exp(-0.5)),
    ),
    "lda": ({"class_weight": None, "shrinkage": 0.1}, LINEAR, WEIGHTS, share(0.5)),
    "centroid": (
        {"class_weight": None, "metric": "euclidean", "shrink": 0.0, "temperature": 1.0},
        SCORED,
        WEIGHTS,
        share(0.5),
    ),
    "naive_bayes": (
        {"class_weight": None, "smoothing": 0.01, "temperature": 1.0},
        SCORED,
        {
            "mean_": np.ones(2),
            "squares_": np.array([[-0.5, -0.5], [-1.0, -1.0]]),
            "coef_": np.array([[0.0, 0.0], [1.0, 0.0]]),
            "intercept_": np.zeros(2),
        },
        share(-0.5),
    ),
    "knn": (
        {"class_weight": None, "k": 1, "metric": "cosine", "sharpness": None},
        {"n_features_in_": 2, "classes_": TEXT, "variance_": 1.0, "converged_": True},
        {
            "rows_": f32([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]),
            "codes_": np.array([0, 1, 1]),
            "counts_": np.ones(3),
            "factors_": np.ones(2),
            "origin_": np.zeros(2),
        },
        # The vote of the nearest, and a third of one as prior, of two.
        2 / 3,
    ),
    "mlp": (
        MLP | {"class_weight": None, "temperature": 1.0},
        SCORED,
        {"hidden_coef_": EYE, "hidden_intercept_": f32(0.0, -3.0), "coef_": EYE, "intercept_": f32(0.0, 1.0)},
        share(1.0),
    ),
}


# A network that knows nothing of smoothed labels was fitted without, and a head without a temperature at 1.
BEFORE = {"mlp": {"label_smoothing": 0.0}, "lda": {"temperature": 1.0}, "knn": {"temperature": 1.0}}


def safetensors(arrays):
    """The header's length in 8 bytes, the header as JSON, the numbers: https://github.com/huggingface/safetensors."""
    header, numbers = {}, b""
    for key, array in arrays.items():
        start, numbers = len(numbers), numbers + array.tobytes()
        kind = KINDS[array.dtype.name]
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, len(numbers)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + numbers


def written(root, name, params, learned, arrays):
    root.mkdir()
    blob = safetensors(arrays)
    (root / "head.safetensors").write_bytes(blob)
    document = {"name": name, "file": "head.safetensors", "params": params, "learned": learned, "format": 1}
    document |= {"sha256": sha256(blob).hexdigest(), "meta": {"classes": ["cat", "dog"], "tempering": None}}
    (root / "head.json").write_text(json.dumps(document))
    return root


def test_every_head_has_been_written_in_format_1():
    assert set(GOLDEN) == set(HEADS)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_head_of_format_1_is_read_and_predicts(name, tmp_path):
    params, learned, arrays, expected = GOLDEN[name]
    loaded = load_head(written(tmp_path / "head", name, params, learned, arrays))
    assert loaded.head.predict_proba(X) == pytest.approx(np.array([[expected, 1.0 - expected]]), abs=1e-6)
    assert loaded.head.predict(X).tolist() == ["cat" if expected > 0.5 else "dog"]
    fitted = load_fitted(tmp_path / "head").head
    assert fitted.predict_proba(X) == pytest.approx(np.array([[expected, 1.0 - expected]]), abs=1e-6)
    assert loaded.head.get_params() == BEFORE.get(name, {}) | params
    assert loaded.head.converged_ is learned["converged_"]
    assert loaded.meta == {"classes": ["cat", "dog"], "tempering": None}


def test_scores_by_landmarks_of_format_1_are_those_of_classes(tmp_path):
    arrays = KERNEL | {"coef_": f32([2.0, 0.0]), "intercept_": f32(0.0, 0.0)}
    learned = SCORED | {"method_": "nystroem", "gamma_": 0.5}
    loaded = load_head(written(tmp_path / "head", "rbf_svm", SVM | {"method": "nystroem"}, learned, arrays))
    assert loaded.head.predict_proba(X)[0, 0] == pytest.approx(share(2.0 * exp(-0.5)), abs=1e-6)


def test_labels_and_weights_that_are_numbers_of_format_1_come_back_as_numbers(tmp_path):
    params = {"alpha": 1.0, "class_weight": {"pairs": [[3, 2.0], [5, 1.0]]}, "temperature": 1.0}
    learned = {key: value for key, value in LINEAR.items() if key != "classes_"}
    arrays = WEIGHTS | {"classes_": np.array([3, 5])}
    head = load_head(written(tmp_path / "head", "ridge", params, learned, arrays)).head
    assert head.predict(X).tolist() == [3]
    assert head.class_weight == {3: 2.0, 5: 1.0}
