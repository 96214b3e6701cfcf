import numpy as np
import pytest

from featurecache.classify.evaluation.metric_sums import MetricSums
from featurecache.classify.evaluation.metrics import score


def predictions(n, n_classes, seed):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(n_classes, 0.3), size=n)
    proba[:3] = np.eye(n_classes)[[0, 1, 0]][:n]  # certain, right or wrong
    return rng.integers(0, n_classes, n), proba, np.where(rng.random(n) < 0.9, proba.argmax(axis=1), 0)


@pytest.mark.parametrize(("n", "n_classes", "seed"), [(1, 2, 0), (40, 2, 1), (200, 3, 2), (300, 12, 3)])
def test_the_sums_of_any_parts_are_the_metrics_of_the_whole(n, n_classes, seed):
    y, proba, predicted = predictions(n, n_classes, seed)
    rng, expected = np.random.default_rng(seed), score(y, proba, predicted)
    part = rng.integers(0, 3, n)
    total = None
    for which in np.unique(part):
        own = part == which
        cut = int(own.sum()) // 2
        blocks = [(rows, proba[own][rows]) for rows in (slice(0, cut), slice(cut, None)) if len(proba[own][rows])]
        sums = MetricSums.of(blocks, y[own], predicted[own], n_classes)
        total = sums if total is None else total + sums
    assert total.metrics(np.bincount(y, minlength=n_classes)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_a_class_without_a_column_has_probability_zero():
    proba = np.array([[0.25, 0.75], [0.6, 0.4]])
    found = MetricSums.of([(slice(None), proba)], np.array([-1, 0]), np.array([1, 0]), 2)
    wide = np.array([[0.25, 0.75, 0.0], [0.6, 0.4, 0.0]])
    expected = score(np.array([2, 0]), wide, np.array([1, 0]))
    assert found.among(np.array([0, 1]), 3).metrics(np.array([1, 0, 1])) == pytest.approx(expected, rel=1e-12)


def test_never_minus_zero():
    found = MetricSums.of([(slice(None), np.eye(2))], np.arange(2), np.arange(2), 2)
    assert str(found.metrics(np.ones(2, dtype=int))["log_loss"]) == "0.0"
