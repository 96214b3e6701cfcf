import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import classify.knn
from classify.knn import KNNHead, nearest


def test_the_neighbours_are_scikit_learns_by_cosine(monkeypatch):
    monkeypatch.setattr(classify.knn, "BLOCK", 7)
    rng = np.random.default_rng(0)
    X, y, new = rng.normal(size=(60, 5)) + 1.0, np.arange(60) % 2, rng.normal(size=(20, 5)) + 1.0
    theirs = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(X, y)
    ours = KNNHead(k=5).fit(X, y)
    # Half a vote of prior for each of two equally frequent classes.
    votes = 5 * theirs.predict_proba(new)
    assert ours.predict_proba(new) == pytest.approx((votes + 0.5) / 6)
    assert (ours.predict(new) == theirs.predict(new)).all()


def test_more_neighbours_than_rows_are_all_rows():
    X, y = np.eye(4), np.array([0, 0, 0, 1])
    assert KNNHead(k=100).fit(X, y).predict_proba(X) == pytest.approx(np.tile([3.75 / 5, 1.25 / 5], (4, 1)))


def test_equal_votes_go_to_the_more_frequent_class():
    X = np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.3], [-2.0, 0.0], [-1.5, -0.4]])
    head = KNNHead(k=5).fit(X[[0, 0, 2, 3, 4]], np.array([0, 0, 1, 1, 1]))
    assert head.predict(np.array([[1.0, 0.0]])).tolist() == [1]


def test_the_largest_come_first():
    assert nearest(np.array([[0.1, 0.9, 0.5, 0.7]]), 3).tolist() == [[1, 3, 2]]
