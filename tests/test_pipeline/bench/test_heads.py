"""The bench of heads compares ours with scikit-learn's on the same rows, and says what those rows are."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import featurecache.bench.heads
from featurecache.bench.head_comparisons.features import Data, first_rows, make_features, prepare
from featurecache.bench.head_comparisons.lines import LINES, Line
from featurecache.bench.head_comparisons.neighbours import compare_knn, compare_mlp
from featurecache.bench.head_comparisons.solvers import (
    Difference,
    Setting,
    compare_logistic,
    compare_svm,
    exact_logistic,
    margin_bound,
    margin_objective,
    softmax_objective,
    softmax_slope,
)
from featurecache.bench.heads import lines_text
from featurecache.classify.heads.linear_svm import LinearSVMHead
from featurecache.cli.main import run

FEW = 9  # of the 45 and 20 settings scikit-learn fits so many fewer


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    X = (rng.normal(size=(400, 12)) + 1.5 * np.eye(3, 12)[y]) * np.geomspace(1.0, 0.01, 12) + 1.0
    X = X.astype(np.float32)
    return first_rows(Data("toy", X[:300], y[:300], X[250:], y[250:]), 250)


def test_ours_on_the_rows_scores_them_as_its_weights_for_scaled_rows_do(data):
    head = LinearSVMHead(C=0.1).fit(data.X, data.y)
    coef, intercept = data.on_scaled(head)
    assert data.scaled_test @ coef.T + intercept == pytest.approx(head.decision_function(data.X_test), abs=1e-4)
    assert data.scaled.mean(axis=0) == pytest.approx(np.zeros(12), abs=1e-4)
    assert data.scaled.var(axis=0).mean() == pytest.approx(1.0, rel=1e-4)


def test_the_softmax_objective_is_the_log_loss_and_half_the_squared_weights(data):
    coef, intercept = np.random.default_rng(1).normal(size=(3, 12)), np.array([0.1, 0.0, -0.1])
    scores = data.scaled @ coef.T + intercept
    chance = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = -2.0 * np.log(chance[np.arange(250), data.y]).sum() + 0.5 * (coef**2).sum()
    assert softmax_objective(data, 2.0, coef, intercept) == pytest.approx(expected)


def test_the_margin_objective_is_the_squared_hinge_and_half_the_squared_weights(data):
    coef, intercept = np.random.default_rng(1).normal(size=(3, 12)), np.array([0.1, 0.0, -0.1])
    loss = sum(
        max(0.0, 1.0 - (1 if data.y[i] == c else -1) * (data.scaled[i] @ coef[c] + intercept[c])) ** 2
        for i in range(250)
        for c in range(3)
    )
    assert margin_objective(data, 2.0, coef, intercept) == pytest.approx(2.0 * loss + 0.5 * (coef**2).sum())


@pytest.mark.parametrize(("compare", "n_settings", "near"), [(compare_logistic, 45, 1e-4), (compare_svm, 20, 1e-3)])
def test_ours_reach_the_minimum_at_every_strength_that_both_fit(data, capsys, compare, n_settings, near):
    found = compare(data, FEW, exact=True)
    assert found.settings == n_settings
    assert len(found.each) == len(range(0, n_settings, FEW))
    assert found.objective == max(one.objective for one in found.each)
    assert all(abs(one.objective) < near for one in found.each)
    # A row more or less of 150 is two thirds of a point.
    assert abs(found.converged) < 0.01
    assert min(found.seconds, found.their_seconds) > 0
    told = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in told] == [f"  C = {one.strength:.3g}" for one in found.each]


def test_seconds_of_some_settings_are_scaled_up_to_all():
    each = tuple(Setting(C, seconds, None, accuracy, None) for C, seconds, accuracy in ((1, 2.0, 0.1), (2, 4.0, -0.2)))
    found = Difference(20, 1.0, each, "")
    assert (found.their_seconds, found.accuracy, found.objective, found.converged) == (60.0, -0.2, None, None)


@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 100.0])
def test_no_margin_objective_is_below_the_bound(data, C):
    """Neither those of random weights nor scikit-learn's best, with next to no penalty on its intercept."""
    random = np.random.default_rng(4)
    theirs = LinearSVC(C=C, dual=False, intercept_scaling=100.0, tol=1e-10, max_iter=100_000)
    theirs.fit(data.scaled.astype(np.float64), data.y)
    least = margin_objective(data, C, theirs.coef_, theirs.intercept_)
    weights, own = data.on_scaled(LinearSVMHead(C=C).fit(data.X.astype(np.float64), data.y))
    bound = margin_bound(data, C, weights, own)
    assert bound == pytest.approx(least, rel=1e-3)
    assert bound < least * (1.0 + 1e-12)
    assert bound == pytest.approx(margin_objective(data, C, weights, own), rel=1e-6)
    for _ in range(20):
        coef, intercept = weights + random.normal(size=(3, 12)), own + random.normal(size=3)
        assert margin_bound(data, C, coef, intercept) < least < margin_objective(data, C, coef, intercept)


def test_a_bound_from_weights_without_an_intercept_is_below_what_an_intercept_brings(data):
    """Their dual objective is the least without one; balanced, so that one would be free, it is lower."""
    rows, y = data.X.astype(np.float64)[data.y < 2], data.y[data.y < 2]
    rows, y = rows[np.flatnonzero((y == 0) | (np.arange(len(y)) % 4 == 0))], y[(y == 0) | (np.arange(len(y)) % 4 == 0)]
    uneven = Data("uneven", rows, np.where(y == 0, 0, 1), rows, y)
    theirs = LinearSVC(C=1e-3, dual=False, fit_intercept=False, tol=1e-10).fit(uneven.scaled, y)
    coef = np.vstack([-theirs.coef_, theirs.coef_])
    ours = LinearSVMHead(C=1e-3).fit(rows, y)
    least = margin_objective(uneven, 1e-3, *uneven.on_scaled(ours))
    assert margin_objective(uneven, 1e-3, coef, np.zeros(2)) > 1.01 * least
    assert 0.5 * least < margin_bound(uneven, 1e-3, coef, np.zeros(2)) < least


def test_a_bound_where_one_side_has_no_slack_is_zero(data):
    assert margin_bound(data, 1.0, np.zeros((3, 12)), np.full(3, -1.0)) == 0.0


@pytest.mark.parametrize("C", [0.01, 10.0])
def test_an_exact_fit_begins_elsewhere_and_ends_in_the_minimum(data, C):
    """With either solver: where it begins is no matter, and the slope tells one that has not arrived."""
    cold = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(data.scaled.astype(np.float64), data.y)
    random = np.random.default_rng(3)
    start = SimpleNamespace(coef_=random.normal(size=(3, 12)), intercept_=random.normal(size=3))
    exact = exact_logistic(C, start.coef_, start.intercept_).fit(data.scaled.astype(np.float64), data.y)
    least = softmax_objective(data, C, cold.coef_, cold.intercept_)
    assert softmax_objective(data, C, exact.coef_, exact.intercept_) == pytest.approx(least, rel=1e-9)
    assert softmax_objective(data, C, start.coef_, start.intercept_) > 1.1 * least
    assert softmax_slope(data, C, exact) < 1e-6 < 1e-2 < softmax_slope(data, C, start)


def test_without_exact_the_svm_has_nothing_to_compare_objectives_with(data):
    found = compare_svm(data, FEW, exact=False)
    assert (found.objective, found.converged) == (None, None)


@pytest.fixture(scope="module")
def many(data):
    noise = 0.1 * np.random.default_rng(2).normal(size=(4000, 12))
    return np.tile(data.X, (16, 1)) + noise.astype(np.float32), np.tile(data.y, 16)


def test_neighbours_are_those_of_scikit_learn(many):
    assert "100.000% of the neighbours shared" in compare_knn(*many, 200).note


def test_networks_are_about_as_accurate_as_scikit_learns(many):
    found = compare_mlp(*many, 400)
    assert found.settings == 12
    # Three epochs of a few hundred steps: ours are a mean of the steps, which comes after them.
    assert found.accuracy > -0.1


def test_a_line_for_ridge_compares_scores_and_folds(data):
    line = LINES["ridge"](data, FEW, False)
    assert line.settings == 45
    assert line.objective < 1e-4
    assert line.ratio == line.their_seconds / line.seconds
    assert line.folds_ratio > 0


def test_a_head_without_a_rival_has_a_line_for_its_folds(data):
    line = LINES["centroid"](data, FEW, False)
    assert (line.settings, line.their_seconds, line.ratio, line.accuracy) == (18, None, None, None)
    assert line.folds_ratio > 0


def test_random_features_have_the_spectrum_of_real_ones():
    data = make_features(2000)
    assert data.X.shape == (2000, 1280)
    energies = np.linalg.eigvalsh(np.cov(data.scaled, rowvar=False))[::-1]
    assert 30 < energies[0] < 200
    assert energies[100] < energies[0] / 10


def test_what_is_not_cached_is_said_with_the_command_that_would_cache_it(tmp_path, monkeypatch, data):
    monkeypatch.setattr("featurecache.bench.head_comparisons.features.make_features", lambda n_rows: data)
    images, cache = tmp_path / "fashion-mnist", tmp_path / "cache"
    found, note = prepare(images, cache, 250)
    assert found.name == "toy"
    assert f"The features of '{images}' are not in '{cache}'" in note
    assert f"make data DATASET=fashion-mnist, then featurecache extract {images} --cache {cache}" in note
    images.mkdir()
    assert "make data" not in prepare(images, cache, 250)[1]


def test_the_table_leaves_out_what_was_not_measured(data):
    lines = [
        Line("logistic", 45, 2.0, 3.9, 60.0, 25, 1e-5, -0.0004, None),
        Line("lda", 15, 1.0, 2.04),
        Line("knn", 20, 1.0, 3.0, 0.9, 1 / 1.2, note="99.9% of the neighbours shared"),
    ]
    told = lines_text(data, lines, "These are random.").splitlines()
    assert told[0] == "toy, 250 x 12 x 3; ours minus scikit-learn's defaults"
    assert told[2] == "These are random."
    assert told[6].split() == ["logistic", "45", "2.0", "60.0", "30.0", "25", "+1.0e-05", "-0.04", "3.9"]
    assert told[7].split() == ["lda", "15", "1.0", "2.0"]
    assert told[8].split()[:6] == ["knn", "20", "1.0", "0.9", "0.9", "0.83"]
    assert told[8].endswith("99.9% of the neighbours shared")


def test_the_command_prints_the_table_and_writes_the_numbers(tmp_path, monkeypatch, capsys, data):
    monkeypatch.setattr(featurecache.bench.heads, "prepare", lambda images, cache, n_rows: (data, "These are random."))
    out = tmp_path / "bench.json"
    assert run(["bench", "heads", "--heads", "centroid,ridge", "--sparse", "15", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "These are random." in printed.err
    assert "These are random." in printed.out
    found = json.loads(out.read_text())
    assert [line["head"] for line in found["lines"]] == ["centroid", "ridge"]
    assert found["lines"][1]["ratio"] > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--heads", "nothing"], "'nothing' has no line here"),
        (["--sparse", "0"], "'0' is not a whole number of 1 or more."),
        (["--images", "nowhere"], "There is no folder 'nowhere'"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, told, capsys):
    assert run(["bench", "heads", *words]) == 2
    assert told in capsys.readouterr().err
