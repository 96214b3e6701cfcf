"""The closed form equals what it replaces: N fits, each without one row."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from featurecache.classify.arrays.scaling import fit_scaling
from featurecache.classify.evaluation.leave_one_out import knn_correct, ridge_correct


def random_set(n_rows: int, feature_dim: int, n_classes: int = 3):
    random = np.random.default_rng(n_rows)
    y = np.arange(n_rows) % n_classes
    return random.normal(size=(n_rows, feature_dim)) + random.normal(size=(n_classes, feature_dim))[
        y
    ] / feature_dim**0.5, y


@pytest.mark.parametrize("size", [(60, 5), (40, 80)])
@pytest.mark.parametrize("alpha", [0.1, 30.0])
def test_the_ridge_equals_n_fits_without_one_row_each(size, alpha):
    X, y = random_set(*size)
    Z, signs = fit_scaling(X).apply(X), 2.0 * np.eye(3)[y] - 1
    expected = []
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        expected.append(Ridge(alpha=alpha).fit(Z[others], signs[others]).predict(Z[i : i + 1]).argmax() == y[i])
    correct, chosen = ridge_correct(X, y, alphas=(alpha,))
    assert chosen == alpha
    assert correct.tolist() == expected
    assert 0 < correct.sum() < len(y)


def test_the_strength_with_most_right_answers_is_chosen():
    X, y = random_set(40, 80)
    alphas = (0.1, 10.0, 1000.0)
    counts = [ridge_correct(X, y, alphas=(alpha,))[0].sum() for alpha in alphas]
    correct, chosen = ridge_correct(X, y, alphas=alphas)
    assert correct.sum() == max(counts) == counts[alphas.index(chosen)]


def test_the_neighbours_vote_without_the_row_itself():
    X, y = random_set(90, 6)
    expected = []
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        head = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(X[others], y[others])
        expected.append(head.predict(X[i : i + 1])[0] == y[i])
    assert knn_correct(X, y, k=1).tolist() == expected


def test_equal_votes_go_to_the_nearer():
    X = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 5.0]])
    assert knn_correct(X, np.array([0, 0, 1, 1]), k=2)[0]


def test_copies_of_a_row_count_as_others():
    X = np.array([[1.0, 0], [1.0, 0], [0, 1.0], [0, 1.0]])
    assert knn_correct(X, np.array([0, 0, 1, 1]), k=1).all()
