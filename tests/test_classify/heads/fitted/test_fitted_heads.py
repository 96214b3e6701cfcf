"""Heads read for prediction only: the same probabilities as their estimators, without scikit-learn and torch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from featurecache.base.errors import SavedHeadError
from featurecache.classify.heads.fitted.build import KINDS
from featurecache.classify.heads.fitted.tables import ALLOWED, LEARNED
from featurecache.classify.heads.saving.folder import load_fitted, load_head, save_head
from featurecache.classify.heads.table import HEADS, build_head
from featurecache.classify.solvers import nearest_rows as search
from featurecache.classify.solvers.nearest_rows import nearest_rows

SETTINGS = {
    "logistic": [{"C": 1.0}],
    "ridge": [{"alpha": 10.0, "temperature": 0.3}],
    "linear_svm": [{"temperature": 0.5}],
    "lda": [{"temperature": 2.0}],
    "centroid": [{"metric": "euclidean"}, {"metric": "cosine", "temperature": 0.1}],
    "naive_bayes": [{"temperature": 3.0}],
    "mlp": [{"hidden": 16, "epochs": 1, "temperature": 0.7}],
    "rbf_svm": [{"method": "exact"}, {"method": "nystroem", "n_landmarks": 20}],
    "knn": [
        {"k": 7},
        {"k": 200, "sharpness": 0.1, "temperature": 0.5},
        {"k": 5, "metric": "euclidean", "sharpness": 0.1, "class_weight": "balanced"},
    ],
}
CASES = [(name, number) for name, settings in SETTINGS.items() for number in range(len(settings))]
ALONE = """
import sys, numpy as np
from pathlib import Path
from featurecache.classify.heads.saving.folder import load_fitted
X = np.load(sys.argv[1])
for place in sys.argv[2:]:
    head = load_fitted(Path(place)).head
    head.predict_both(X)
print([name for name in ("torch", "torchvision", "sklearn", "scipy", "pandas") if name in sys.modules])
"""


def rows(n_classes, *, n=90, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return (rng.normal(size=(n, 12)) + 2.0 + 1.5 * rng.normal(size=(n_classes, 12))[y]).astype(dtype), y


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every setting of every head, fitted on three classes of float64 rows, and on two of float32: its folder."""
    root, places = tmp_path_factory.mktemp("heads"), {}
    for name, number in CASES:
        for n_classes, dtype in ((3, np.float64), (2, np.float32)):
            X, y = rows(n_classes, dtype=dtype)
            place = places[name, number, n_classes] = root / f"{name}-{number}-{n_classes}"
            labels = np.array(["ant", "bee", "cat"])[y]
            save_head(build_head(name, **SETTINGS[name][number]).fit(X, labels), place, meta={})
    return places


def test_every_head_has_a_fitted_form():
    assert set(KINDS) == set(ALLOWED) == set(LEARNED) == set(HEADS) == set(SETTINGS)


@pytest.mark.parametrize("n_classes", [3, 2])
@pytest.mark.parametrize(("name", "number"), CASES)
def test_it_predicts_what_the_estimator_does(saved, name, number, n_classes):
    place = saved[name, number, n_classes]
    estimator, fitted = load_head(place).head, load_fitted(place).head
    assert not hasattr(fitted, "fit")
    X = rows(n_classes, seed=1, dtype=np.float64)[0]
    X[3] = 0.0
    labels, proba = estimator.predict_both(X)
    found_labels, found = fitted.predict_both(X)
    np.testing.assert_allclose(found, proba, rtol=1e-6 if n_classes == 3 else 1e-5)
    assert found_labels.tolist() == labels.tolist()
    assert fitted.predict(X).tolist() == labels.tolist()
    assert np.array_equal(fitted.predict_proba(X), found)
    assert hasattr(fitted, "decision_function") == hasattr(estimator, "decision_function")
    if hasattr(fitted, "decision_function"):
        np.testing.assert_allclose(fitted.decision_function(X), estimator.decision_function(X), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_rows_of_other_types_are_taken_as_the_estimator_takes_them(saved, dtype):
    X = (4 * rows(3, seed=2)[0]).astype(dtype)
    for name in ("logistic", "mlp", "naive_bayes", "knn", "rbf_svm"):
        place = saved[name, 0, 3]
        expected, found = load_head(place).head.predict_proba(X), load_fitted(place).head.predict_proba(X)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_neither_scikit_learn_nor_torch_is_imported_for_it(saved, tmp_path):
    np.save(tmp_path / "X.npy", rows(3)[0])
    places = [str(saved[name, number, 3]) for name, number in CASES]
    search = os.pathsep.join(path for path in sys.path if path)
    ended = subprocess.run(
        [sys.executable, "-P", "-c", ALONE, str(tmp_path / "X.npy"), *places],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": search},
    )  # fmt: skip
    assert ended.stdout.strip() == "[]", ended.stderr


@pytest.mark.parametrize(
    ("X", "said"),
    [
        ([[1.0] * 11], "X has 11 features, but FittedLinear is expecting 12 features as input."),
        ([[1.0] * 11 + [np.nan]], "Input X contains NaN or infinity, first in row 0."),
        ([[1j] * 12], "X has complex numbers: give real ones."),
        ([1.0] * 12, "X has shape (12,): give features (N, D) with at least one row and one column."),
    ],
)
def test_rows_that_it_cannot_take_are_refused(saved, X, said):
    with pytest.raises(ValueError) as refused:
        load_fitted(saved["ridge", 0, 3]).head.predict(X)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("params", "colour", 1, "'colour' is no parameter of the head 'ridge'"),
        ("params", "temperature", 0.0, "temperature=0.0 is not possible"),
        ("params", "class_weight", "often", "class_weight='often' is unknown"),
        ("learned", "predict_both", 1, "'predict_both' is not something a head learns"),
        ("learned", "n_iter_", -1, "n_iter_=-1 is not possible"),
    ],
)
def test_values_that_no_head_has_are_refused(saved, tmp_path, part, key, value, said):
    place, folder = saved["ridge", 0, 3], tmp_path / "head"
    folder.mkdir()
    document = json.loads((place / "head.json").read_text())
    document[part][key] = value
    (folder / "head.json").write_text(json.dumps(document))
    (folder / "head.safetensors").write_bytes((place / "head.safetensors").read_bytes())
    with pytest.raises(SavedHeadError) as refused:
        load_fitted(folder)
    assert said in str(refused.value)


def test_of_equally_near_rows_the_first_are_taken():
    X = np.repeat(np.eye(3), 4, axis=0)
    found = nearest_rows(np.array([[1.0, 0.0, 0.0]]), X, 3, "cosine", np.zeros(3), np.zeros(12, dtype=bool))
    assert found.rows.tolist() == [[0, 1, 2]]
    absent = np.arange(12) == 1
    found = nearest_rows(np.array([[1.0, 0.0, 0.0]]), X, 4, "euclidean", np.zeros(3), absent)
    assert found.rows.tolist() == [[0, 2, 3, 4]]
    assert found.similarity[0].tolist() == [0.0, 0.0, 0.0, -1.0]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4])
def test_among_copies_with_different_labels_a_saved_head_votes_as_it_did_when_it_was_fitted(tmp_path, k, metric):
    X, y = rows(3, n=60, dtype=np.float32)
    X[40:] = X[:20]
    fitted = build_head("knn", k=k, metric=metric).fit(X, y)
    save_head(fitted, tmp_path / "head", meta={})
    expected, found = fitted.predict_both(X), load_fitted(tmp_path / "head").head.predict_both(X)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5, 30, 50])
def test_rows_and_queries_in_blocks_are_those_at_once(monkeypatch, k, metric):
    X, queries = rows(3, n=50)[0], rows(3, n=9, seed=1)[0]
    X[20:30] = X[:10]
    absent = np.arange(50) % 7 == 0
    expected = nearest_rows(queries, X, k, metric, X.mean(axis=0), absent)
    monkeypatch.setattr(search, "OTHERS", 8)
    monkeypatch.setattr(search, "QUERIES", 4)
    found = nearest_rows(queries, X, k, metric, X.mean(axis=0), absent)
    np.testing.assert_allclose(found.similarity, expected.similarity, rtol=1e-12)
    assert found.rows.shape == (9, k)
    near = np.isfinite(expected.similarity)
    assert np.abs(X[found.rows] - X[expected.rows])[near].max() < 1e-12
    assert not absent[found.rows[near]].any()
