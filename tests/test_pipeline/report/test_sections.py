"""What the plots of the report show follows from the predictions, counted here a second way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from featurecache.base.text import count, short
from featurecache.classify.evaluation.metrics import expected_calibration_error
from featurecache.report.sections import details as closeup
from featurecache.report.sections.map import principal_components, sample_rows
from featurecache.report.sections.reproduce import commands
from featurecache.report.wording import listed, percent, ticks


@pytest.fixture(scope="module", params=[2, 10, 100, 1000])
def answered(request) -> tuple[int, np.ndarray, np.ndarray]:
    """C classes, labels (N,) and predictions (N,) with one error in five."""
    rng, n_classes = np.random.default_rng(request.param), request.param
    y = rng.integers(0, n_classes, 20_000)
    return n_classes, y, np.where(rng.random(len(y)) < 0.2, rng.integers(0, n_classes, len(y)), y)


def test_the_counts_are_those_of_scikit_learn(answered):
    n_classes, y, predicted = answered
    expected = confusion_matrix(y, predicted, labels=range(n_classes))
    np.testing.assert_array_equal(closeup.confusion(y, predicted, n_classes), expected)


def test_a_drawn_matrix_is_small_and_loses_no_image(answered):
    n_classes, y, predicted = answered
    drawn, folded = closeup._fold(closeup.confusion(y, predicted, n_classes))
    assert folded.sum() == len(y)
    assert len(folded) == min(n_classes, closeup.MAX_CLASSES_DRAWN + (n_classes > closeup.MAX_CLASSES_DRAWN))
    for row, label in enumerate(drawn):
        assert folded[row].sum() == (y == label).sum()
        assert folded[row, row] == ((y == label) & (predicted == label)).sum()


def test_a_matrix_says_what_it_folded(answered):
    n_classes, y, predicted = answered
    names = [f"class {i}" for i in range(n_classes)]
    shown = closeup.confusion_figure(closeup.confusion(y, predicted, n_classes), names)
    assert ("are one row and one column" in shown["caption"]) == (n_classes > closeup.MAX_CLASSES_DRAWN)


def test_bars_are_recall_precision_and_support_hardest_first(answered):
    n_classes, y, predicted = answered
    names = [f"{i}" for i in range(n_classes)]
    recall, precision, support = closeup.classes_figure(closeup.confusion(y, predicted, n_classes), names)["figure"][
        "data"
    ]
    order = [int(name) for name in recall["y"]]
    own = {"labels": range(n_classes), "average": None, "zero_division": 0}
    np.testing.assert_allclose(recall["x"], 100 * recall_score(y, predicted, **own)[order], atol=0.006)
    np.testing.assert_allclose(precision["x"], 100 * precision_score(y, predicted, **own)[order], atol=0.006)
    np.testing.assert_array_equal(support["x"], np.bincount(y, minlength=n_classes)[order])
    assert recall["x"] == sorted(recall["x"])


def test_the_reliability_diagram_adds_up_to_the_calibration_error():
    rng = np.random.default_rng(1)
    proba = rng.dirichlet(np.ones(4) / 2, 3000)
    y, predicted = rng.integers(0, 4, 3000), proba.argmax(axis=1)
    _, points, bars = closeup.reliability_figure(proba.max(axis=1), predicted == y)["figure"]["data"]
    n = np.array([each for each in bars["y"] if each])
    gap = np.abs(np.array(points["x"]) - np.array(points["y"])) / 100
    assert (n * gap).sum() / n.sum() == pytest.approx(expected_calibration_error(y, proba, predicted), abs=1e-4)


def test_the_most_confused_pair_comes_first():
    counts = np.array([[5, 0, 7], [1, 9, 0], [2, 0, 8]])
    first, *rest = closeup.confused_pairs(counts, ["a", "b", "c"])
    assert (first["label"], first["said"], first["n"]) == ("a", "c", 7)
    assert [pair["n"] for pair in rest] == [2, 1]


def test_a_sample_takes_errors_first_and_at_most_half_of_them():
    wrong = np.zeros(10_000, bool)
    wrong[::3] = True
    rows = sample_rows(wrong, 1000)
    assert (len(rows), wrong[rows].sum()) == (1000, 500)
    few = sample_rows(np.arange(10_000) < 20, 1000)
    assert (few[:20] == np.arange(20)).all()
    assert len(sample_rows(wrong[:50], 1000)) == 50


def test_the_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 8)).astype(np.float32) * np.arange(1, 9)
    components, variance = principal_components(X.astype(np.float32))
    singular = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(variance, singular**2 / (singular**2).sum(), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(components, axis=0), singular, rtol=1e-4)


def test_features_that_are_all_the_same_have_no_direction():
    components, variance = principal_components(np.ones((30, 6), np.float32))
    assert not components.any()
    assert not variance.any()


def test_ticks_are_short_different_and_escaped():
    assert ticks(["a", "<b>"]) == ["a", "&lt;b&gt;"]
    assert ticks(["a very long name of 1", "a very long name of 2"]) == ["…1", "…2"]
    shown = ticks(["x" * 8 + "y" * 20 + "z" * 8, "x" * 8 + "w" * 20 + "z" * 8, "q"])
    assert len(set(shown)) == 3


def test_numbers_read_well():
    assert percent(0.9999999) == "99.9\N{NO-BREAK SPACE}%"
    assert percent(1.0) == "100.0\N{NO-BREAK SPACE}%"
    assert [short(value) for value in (1e-5, 0.3, 1000.0, 1e5, 12345.678, 7, "rbf")] == [
        "1e-5", "0.3", "1000", "1e5", "1.235e4", "7", "rbf"]  # fmt: skip
    assert count(1, "image") == "1 image"
    assert count(2000, "class", "classes") == "2,000 classes"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"


def test_the_commands_name_what_differs_from_the_defaults(tmp_path):
    request = {"backbone": "resnet50", "weights": None, "layer": "layer3", "pooling": "gem", "precision": "fp32",
               "decode": "reduced"}  # fmt: skip
    config = {"images": "my photos", "requests": [request, request | {"layer": None}], "heads": ["knn"], "seed": 3,
              "folds": 5, "calibrate": True, "shots": [1, 4], "repeats": 5, "cache": str(tmp_path)}  # fmt: skip
    extract, classify = commands(config)
    options = "--backbone resnet50 --layer layer3 --layer default --pooling gem --decode reduced"
    assert classify == (
        f"featurecache classify 'my photos' {options} --heads knn --seed 3 --folds 5 --calibrate --shots 1,4 "
        f"--cache {tmp_path}"
    )
    assert extract.startswith("featurecache extract 'my photos' --backbone resnet50 --layer layer3 --layer default")
