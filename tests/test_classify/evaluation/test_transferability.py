"""Every measure equals one written down from its paper's definition, in dense matrices and another way of computing."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from featurecache.classify.evaluation.transferability import h_score, leep, log_me, nce, shrunk_h_score

SIZES = [(60, 8, 3), (50, 49, 4), (30, 70, 3), (120, 20, 2)]


def random_set(n_rows: int, feature_dim: int, n_classes: int, separation: float = 0.8):
    random = np.random.default_rng(n_rows + feature_dim)
    y = np.arange(n_rows) % n_classes
    centres = separation * random.normal(size=(n_classes, feature_dim))
    return random.normal(size=(n_rows, feature_dim)) + centres[y], y


def evidence_by_iteration(X, t) -> float:
    """The paper's algorithm in dense matrices: posterior mean, then alpha and beta from it, until nothing moves."""
    n_rows, feature_dim = X.shape
    energy, alpha, beta = np.linalg.eigvalsh(X.T @ X), 1.0, 1.0
    for _ in range(4000):
        mean = np.linalg.solve(alpha * np.eye(feature_dim) + beta * X.T @ X, beta * X.T @ t)
        gamma = np.sum(beta * energy / (alpha + beta * energy))
        alpha, before = gamma / (mean @ mean), alpha
        beta = (n_rows - gamma) / np.sum((t - X @ mean) ** 2)
        if abs(alpha - before) < 1e-12 * alpha:
            break
    covariance = X @ X.T / alpha + np.eye(n_rows) / beta
    return float(multivariate_normal(np.zeros(n_rows), covariance).logpdf(t)) / n_rows


def evidence_by_search(X, t) -> float:
    """The largest density over a grid of alpha / beta and a finer one around its best.

    With fewer rows than columns the iteration has no end.
    """
    gram, n_rows = X @ X.T, len(X)

    def evidence(log_ratio: float) -> float:
        spread = gram + np.exp(log_ratio) * np.eye(n_rows)
        variance = t @ np.linalg.solve(spread, t) / n_rows
        return float(multivariate_normal(np.zeros(n_rows), variance * spread).logpdf(t)) / n_rows

    best = max(np.linspace(-20.0, 20.0, 201), key=evidence)
    return max(evidence(log_ratio) for log_ratio in np.linspace(best - 0.2, best + 0.2, 101))


@pytest.mark.parametrize("size", SIZES)
def test_logme_is_the_maximum_of_the_evidence(size):
    X, y = random_set(*size)
    largest = evidence_by_iteration if size[0] > size[1] else evidence_by_search
    theirs = np.mean([largest(X, (y == c).astype(float)) for c in range(size[2])])
    assert log_me(X, y) == pytest.approx(theirs, rel=1e-5)


def test_logme_of_features_that_say_nothing_is_that_of_the_best_constant_variance():
    """Noise of many rows: the weights' variance goes to zero, and what is left is N(0, 1 / beta)."""
    y = np.arange(3000) % 3
    noise = np.random.default_rng(0).normal(size=(3000, 2))
    assert log_me(noise, y) == pytest.approx(-0.5 * (np.log(2 * np.pi / 3) + 1), abs=2e-3)


def between(X, y):
    return np.cov(np.stack([X[y == label].mean(axis=0) for label in y]), rowvar=False)


@pytest.mark.parametrize("size", SIZES)
def test_the_h_score_is_the_trace_of_the_paper(size):
    X, y = random_set(*size)
    theirs = np.trace(np.linalg.pinv(np.cov(X, rowvar=False)) @ between(X, y))
    assert h_score(X, y) == pytest.approx(theirs, rel=1e-6)


def test_the_h_score_says_nothing_once_there_are_as_many_features_as_rows():
    X, y = random_set(30, 70, 3, separation=0.0)
    assert h_score(X, y) == pytest.approx(2.0)
    assert shrunk_h_score(X, y) < 1.0


@pytest.mark.parametrize("size", SIZES)
def test_the_shrunk_h_score_uses_the_covariance_of_scikit_learns_ledoit_wolf(size):
    X, y = random_set(*size)
    estimate = LedoitWolf().fit(X)
    theirs = np.trace(np.linalg.inv(estimate.covariance_) @ ((1 - estimate.shrinkage_) * between(X, y)))
    assert shrunk_h_score(X, y) == pytest.approx(theirs, rel=1e-6)


def test_measures_prefer_features_that_tell_the_classes_apart():
    for measure in (log_me, h_score, shrunk_h_score):
        scores = [measure(*random_set(200, 10, 4, separation)) for separation in (0.0, 0.5, 2.0)]
        assert scores == sorted(scores)


def test_leep_is_the_mean_log_of_the_expected_empirical_prediction():
    random = np.random.default_rng(0)
    theta, y = random.dirichlet(np.ones(6), size=40), random.integers(0, 3, 40)
    total = 0.0
    for i in range(40):
        p = 0.0
        for z in range(6):
            joint = sum(theta[j, z] for j in range(40) if y[j] == y[i]) / 40
            p += theta[i, z] * joint / (theta[:, z].sum() / 40)
        total += np.log(p) / 40
    assert leep(theta, y) == pytest.approx(total, rel=1e-9)


def test_nce_by_hand():
    """Source class 0 holds labels 0 and 1 once each, source class 2 only label 1: -1/2 log 2."""
    assert nce(np.array([0, 0, 2, 2]), np.array([0, 1, 1, 1])) == pytest.approx(-0.5 * np.log(2))


def test_source_classes_that_are_the_labels_lose_nothing():
    y = np.array([0, 1, 2, 0, 1, 2])
    assert nce(y, y) == leep(np.eye(3)[y], y) == 0.0
