import numpy as np
import pytest
import torch

import featurecache.classify.arrays.scaling
from featurecache.classify.arrays.scaling import Scaling, column_moments, fit_scaling, floored
from featurecache.classify.evaluation.label_errors import held_out_proba
from featurecache.classify.evaluation.leave_one_out import ridge_correct
from featurecache.classify.heads.lda import LDAHead
from featurecache.classify.heads.linear_svm import LinearSVMHead
from featurecache.classify.heads.logistic import LogisticHead
from featurecache.classify.heads.ridge import RidgeHead


def test_columns_of_one_deviation_come_out_with_mean_zero_and_deviation_one():
    X = np.column_stack([np.arange(10.0), 7.0 - np.arange(10.0)]).astype(np.float32)
    Z = fit_scaling(X).apply(X)
    assert Z.dtype == np.float32
    assert Z.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert Z.std(axis=0) == pytest.approx([1, 1], abs=1e-6)


def test_the_scale_by_hand():
    """Deviations 1, 2, 3 and a constant: their median is 2, so the scales are as 3 to 4 to 5 and 2."""
    assert floored(np.array([1.0, 2.0, 3.0, 0.0])).tolist() == [3.0, 4.0, 5.0, 2.0]
    unit = np.sqrt(((1 / 3) ** 2 + (2 / 4) ** 2 + (3 / 5) ** 2) / 3)
    scaling = Scaling.of(np.zeros(4), np.array([1.0, 2.0, 3.0, 0.0]))
    assert scaling.scale == pytest.approx(unit * np.array([3.0, 4.0, 5.0, 2.0]))


def test_the_common_scale_by_hand():
    assert Scaling.common(np.zeros(3), np.array([0.0, 3.0, 4.0])).scale == pytest.approx(np.full(3, (25 / 3) ** 0.5))


@pytest.mark.parametrize("kind", [Scaling.of, Scaling.common])
def test_columns_that_are_all_constant_survive(kind):
    assert kind(np.ones(3), np.zeros(3)).scale.tolist() == [1.0, 1.0, 1.0]


def test_the_mean_variance_of_the_columns_that_vary_is_one():
    X = np.random.default_rng(0).normal(size=(500, 7)) * np.geomspace(1e-4, 10, 7)
    X[:, 3] = 5.0
    varying = np.arange(7) != 3
    assert fit_scaling(X).apply(X).var(axis=0)[varying].mean() == pytest.approx(1.0)


def test_a_column_that_hardly_varies_is_not_blown_up():
    X = np.random.default_rng(0).normal(size=(500, 20))
    X[:, 0] = 0.0
    X[0, 0] = 1e-3  # its deviation is 1/22,000
    unseen = np.zeros((1, 20))
    unseen[0, 0] = 1.0
    assert np.abs(fit_scaling(X).apply(X)[:, 0]).max() < 0.01
    assert fit_scaling(X).apply(unseen)[0, 0] < 3.0


def test_a_common_unit_changes_nothing():
    X = np.random.default_rng(0).normal(size=(50, 5)) * np.geomspace(0.01, 1, 5)
    assert fit_scaling(1000.0 * X + 5.0).apply(1000.0 * X + 5.0) == pytest.approx(fit_scaling(X).apply(X))


def test_folded_weights_score_raw_columns_alike():
    rng = np.random.default_rng(0)
    X, W, b = rng.normal(3, 2, (20, 5)), rng.normal(size=(3, 5)), rng.normal(size=3)
    scaling = fit_scaling(X)
    coef, intercept = scaling.fold(W, b)
    assert X @ coef.T + intercept == pytest.approx(scaling.apply(X) @ W.T + b)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_are_those_of_rows_repeated_as_often_as_they_weigh(kind, dtype, monkeypatch):
    monkeypatch.setattr(featurecache.classify.arrays.scaling, "BLOCK", 16)
    rng = np.random.default_rng(1)
    X, weights = (rng.normal(size=(50, 4)) * [1.0, 2.0, 0.1, 5.0] + 3.0).astype(dtype), rng.integers(0, 4, (2, 50))
    X[:, 1] = 0.1
    mean, deviation = column_moments(kind(X), weights.astype(float))
    for number, times in enumerate(weights):
        repeated = np.repeat(X.astype(np.float64), times, axis=0)
        assert mean[number] == pytest.approx(repeated.mean(axis=0), rel=1e-6)
        assert deviation[number, [0, 2, 3]] == pytest.approx(repeated.std(axis=0)[[0, 2, 3]], rel=1e-5)
        assert deviation[number, 1] == 0.0


@pytest.mark.parametrize("size", [1e18, 1e-17])
def test_numbers_whose_squares_float32_cannot_hold_have_their_moments_all_the_same(size):
    X = (np.random.default_rng(0).normal(size=(40, 3)) * size).astype(np.float32)
    assert column_moments(X, np.ones((1, 40)))[1][0] == pytest.approx(X.std(axis=0, dtype=np.float64), rel=1e-6)


def test_the_mean_of_a_block_that_lies_elsewhere_costs_no_digits(monkeypatch):
    monkeypatch.setattr(featurecache.classify.arrays.scaling, "BLOCK", 16)
    X = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    X[16:] += 300.0
    mean, deviation = column_moments(X, np.ones((1, 64)))
    assert deviation[0] == pytest.approx(X.std(axis=0, dtype=np.float64), rel=1e-6)
    assert mean[0] == pytest.approx(X.mean(axis=0, dtype=np.float64), rel=1e-6)


def sparse_set():
    """Classes that 40 columns tell apart, and 30 that are 0 but for one row in a hundred and say nothing."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    telling = rng.normal(size=(600, 40)) + 0.5 * rng.normal(size=(3, 40))[y]
    rare = np.where(rng.uniform(size=(600, 30)) < 0.01, 0.01 * rng.normal(size=(600, 30)) ** 3, 0.0)
    return np.column_stack([telling, rare]).astype(np.float32), telling.astype(np.float32), y


@pytest.mark.parametrize(
    "head", [LogisticHead(C=0.01), RidgeHead(alpha=30.0), LinearSVMHead(C=1e-3), LDAHead(shrinkage=0.1)]
)
def test_columns_that_are_nearly_dead_cost_a_linear_head_next_to_nothing(head):
    X, telling, y = sparse_set()
    without = head.fit(telling[:200], y[:200]).score(telling[200:], y[200:])
    assert head.fit(X[:200], y[:200]).score(X[200:], y[200:]) > without - 0.0075


def test_columns_that_are_nearly_dead_cost_audit_and_select_next_to_nothing():
    X, telling, y = sparse_set()
    fold = np.arange(600) % 5
    right = [(held_out_proba(each, y, fold, alpha=30.0).argmax(axis=1) == y).mean() for each in (X, telling)]
    assert right[0] > right[1] - 0.0075
    left_out = [ridge_correct(each, y, alphas=(30.0,))[0].mean() for each in (X, telling)]
    assert left_out[0] > left_out[1] - 0.0075
