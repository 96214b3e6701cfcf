import tracemalloc

import numpy as np
import pytest

from featurecache.classify.evaluation.bootstrap import bootstrap, draw_counts
from featurecache.classify.evaluation.metrics import score_fully


def drawn(n, n_classes, seed=0, *, delta=1.5, beta=1.0):
    """y (n,), proba (n, C) with ties, and predictions, of a head whose scores are normal around the truth."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    scores = rng.normal(size=(n, n_classes))
    scores[np.arange(n), y] += delta
    proba = np.exp(np.round(beta * scores, 1))
    proba /= proba.sum(axis=1, keepdims=True)
    return y, proba, proba.argmax(axis=1)


def test_every_resample_draws_as_many_images_as_there_are():
    counts = draw_counts(300, n_resamples=70, seed=3)
    assert counts.shape == (300, 70)
    assert set(counts.sum(axis=0).tolist()) == {300}
    # A resample leaves out (1 - 1/n)^n of the images, about 1/e.
    assert np.mean(counts == 0) == pytest.approx(np.exp(-1), abs=0.01)
    assert np.array_equal(counts, draw_counts(300, n_resamples=70, seed=3))


def test_units_are_drawn_whole_and_images_of_their_own_as_without_units():
    units = np.repeat(np.arange(30), np.arange(1, 31))
    counts = draw_counts(len(units), units=units, n_resamples=70, seed=3)
    assert all(len(np.unique(counts[units == unit], axis=0)) == 1 for unit in range(30))
    firsts = np.flatnonzero(np.diff(units, prepend=-1))
    assert set(counts[firsts].sum(axis=0).tolist()) == {30}
    own = np.random.default_rng(0).permutation(300)
    assert np.array_equal(draw_counts(300, units=own, seed=3), draw_counts(300, seed=3))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3, 9])
def test_each_replicate_is_the_metric_of_the_images_drawn(n_classes, grouped):
    y, proba, predicted = drawn(400, n_classes)
    units = np.random.default_rng(1).integers(0, 150, 400) if grouped else None
    counts = draw_counts(400, units=units, n_resamples=30)
    found = bootstrap(y, {"head": (proba, predicted)}, counts)["head"]
    for column in range(30):
        rows = np.repeat(np.arange(400), counts[:, column])
        expected = score_fully(y[rows], proba[rows], predicted[rows])
        # float32 sums; the AUC's replicates leave out what is of order 1 / n.
        assert {name: found[name][column] for name in expected} == pytest.approx(expected, rel=2e-5, abs=5e-3)
        for name in set(expected) - {"auc"}:
            assert found[name][column] == pytest.approx(expected[name], rel=2e-5, abs=1e-6)


def test_a_sparse_sum_is_that_of_a_small_one(monkeypatch):
    y, proba, predicted = drawn(300, 7)
    counts = draw_counts(300, n_resamples=20)
    small = bootstrap(y, {"head": (proba, predicted)}, counts)["head"]
    monkeypatch.setattr("featurecache.classify.evaluation.bootstrap.DENSE", 0)
    sparse = bootstrap(y, {"head": (proba, predicted)}, counts)["head"]
    for name, values in small.items():
        np.testing.assert_allclose(values, sparse[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_replicates_of_the_auc_spread_as_those_of_the_auc_itself():
    y, proba, predicted = drawn(400, 3)
    counts = draw_counts(400, n_resamples=400)
    rows = [np.repeat(np.arange(400), column) for column in counts.T]
    whole = np.array([score_fully(y[r], proba[r], predicted[r])["auc"] for r in rows])
    found = bootstrap(y, {"head": (proba, predicted)}, counts)["head"]["auc"]
    assert np.corrcoef(found, whole)[0, 1] > 0.995
    assert np.std(found) == pytest.approx(np.std(whole), rel=0.02)


def test_a_class_that_a_resample_lacks_does_not_count_in_it():
    y = np.array([0] * 9 + [1])
    predicted = np.array([0] * 8 + [1, 1])
    proba = np.eye(2)[predicted]
    counts = np.array([[2] + [1] * 8 + [0], [1] * 10], dtype=np.uint8).T
    found = bootstrap(y, {"head": (proba, predicted)}, counts)["head"]
    assert found["balanced_accuracy"] == pytest.approx([9 / 10, (8 / 9 + 1) / 2])


def test_heads_share_the_resamples_so_that_equal_heads_never_differ():
    y, proba, predicted = drawn(200, 3)
    counts = draw_counts(200, n_resamples=300)
    found = bootstrap(y, {"a": (proba, predicted), "b": (proba.copy(), predicted.copy())}, counts)
    assert all(np.array_equal(found["a"][name], found["b"][name]) for name in found["a"])


def test_more_heads_need_no_more_memory_than_one():
    y, proba, predicted = drawn(2000, 100)
    counts = draw_counts(2000, n_resamples=20)
    peaks = []
    for n_heads in (1, 8):
        tracemalloc.start()
        bootstrap(y, {str(i): (proba, predicted) for i in range(n_heads)}, counts)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_of_one_class_there_is_no_auc():
    _, proba, predicted = drawn(50, 3)
    assert "auc" not in bootstrap(np.zeros(50, dtype=int), {"a": (proba, predicted)}, draw_counts(50))["a"]


def test_lengths_that_disagree_are_refused():
    y, proba, predicted = drawn(50, 3)
    with pytest.raises(ValueError, match="a has 50 rows, y_true 49"):
        bootstrap(y[:49], {"a": (proba, predicted)}, draw_counts(50))
