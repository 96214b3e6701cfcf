"""Blocks change nothing: pairs, neighbours and distances are those of the whole table."""

import numpy as np
import pytest

from featurecache.classify.evaluation import similarity as closeness
from featurecache.classify.evaluation.similarity import close_pairs, isolation, nearest_others, unit_rows


@pytest.fixture(autouse=True, params=[0, closeness.FEW_COSINES], ids=["torch", "numpy"])
def _small_blocks(monkeypatch, request):
    monkeypatch.setattr(closeness, "BLOCK", 7)
    monkeypatch.setattr(closeness, "FEW_COSINES", request.param)


@pytest.fixture(name="X")
def random_rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)


def test_close_pairs_are_those_of_the_whole_table(X):
    units = unit_rows(X)
    similarity = units @ units.T
    expected = {(i, j) for i in range(40) for j in range(i + 1, 40) if similarity[i, j] >= 0.6}
    found = close_pairs(units, 0.6)
    assert len(expected) > 20
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
    assert found.similarity == pytest.approx(similarity[found.first, found.second], rel=1e-5)


def test_a_burst_of_equal_rows_does_not_become_all_its_pairs(monkeypatch):
    """Not of one block of rows, and not of many."""
    monkeypatch.setattr(closeness, "MOST_PAIRS_A_ROW", 2)
    found = close_pairs(np.ones((40, 1), dtype=np.float32), 0.5)
    assert np.bincount(found.first).max() == 2
    assert set(np.concatenate([found.first, found.second])) == set(range(40))


def test_a_pair_between_two_sides_is_not_lost_in_a_burst_within_one(monkeypatch):
    monkeypatch.setattr(closeness, "MOST_PAIRS_A_ROW", 2)
    rows = unit_rows(np.column_stack([np.ones(40), np.linspace(0.0, 0.1, 40)]))
    sides = np.r_[np.zeros(39, dtype=np.int64), 1]
    found = close_pairs(rows, 0.5, sides=sides)
    assert set(found.first[found.second == 39].tolist()) == set(range(39))
    assert np.bincount(found.first[found.second < 39]).max() == 2


def test_a_row_of_zeros_is_close_to_nothing():
    assert len(close_pairs(unit_rows(np.zeros((3, 4))), 0.1).first) == 0


def test_the_row_itself_is_no_neighbour_of_its_own(X):
    rows, cosine = nearest_others(X, X, 3, np.arange(40))
    similarity = unit_rows(X) @ unit_rows(X).T
    np.fill_diagonal(similarity, -np.inf)
    assert rows.tolist() == np.argsort(-similarity, axis=1)[:, :3].tolist()
    assert cosine == pytest.approx(-np.sort(-similarity, axis=1)[:, :3], rel=1e-4)


def test_a_copy_is_a_neighbour():
    X = np.array([[1.0, 0], [1.0, 0], [0, 1.0]], dtype=np.float32)
    rows, _ = nearest_others(X, X, 1, np.arange(3))
    assert rows[:2, 0].tolist() == [1, 0]


def test_a_row_of_zeros_has_cosines_of_zero():
    X = np.array([[0.0, 0], [1.0, 0], [0, -1.0]], dtype=np.float32)
    _, cosine = nearest_others(X, X, 2, np.arange(3))
    assert cosine.tolist() == [[0.0, 0.0]] * 3


def test_queries_from_outside_see_every_row(X):
    rows, _ = nearest_others(X[:2] * 3, X, 1, np.full(2, -1))
    assert rows[:, 0].tolist() == [0, 1]


def test_more_neighbours_than_rows_are_refused(X):
    with pytest.raises(ValueError, match="40 rows have no 40 neighbours"):
        nearest_others(X, X, 40, np.arange(40))


def test_isolation_is_the_distance_to_the_kth_of_all_rows_where_the_sample_is_all(X):
    similarity = unit_rows(X) @ unit_rows(X).T
    np.fill_diagonal(similarity, -np.inf)
    assert isolation(X, 4) == pytest.approx(1 - np.sort(similarity, axis=1)[:, -4], abs=1e-5)


def test_a_sample_still_puts_the_stranger_first(monkeypatch):
    monkeypatch.setattr(closeness, "N_REFERENCES", 20)
    random = np.random.default_rng(0)
    X = np.array([1.0, 0, 0]) + 0.1 * random.normal(size=(60, 3))
    X[33] = [-1.0, 0, 0]
    assert isolation(X.astype(np.float32), 3).argmax() == 33
