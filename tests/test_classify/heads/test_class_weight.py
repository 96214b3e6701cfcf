"""class_weight="balanced", n / (C n_c), against scikit-learn's and losses written out by hand, on uneven classes."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC, LinearSVC

from featurecache.classify.heads.table import HEADS, build_head
from featurecache.classify.selection.holdouts import val_round
from featurecache.classify.selection.settings import build_grid, weighs_classes
from featurecache.classify.selection.sweep import sweep

N, D = 240, 6


def uneven(n_classes=3, *, seed=0):
    """Overlapping clouds X (240, 6), every column with mean 0 and deviation 1, classes of 160, 50 and 30 rows or so."""
    rng = np.random.default_rng(seed)
    share = 0.3 ** np.arange(n_classes)
    y = rng.choice(n_classes, N, p=share / share.sum())
    X = rng.normal(size=(N, D)) + 1.2 * rng.normal(size=(n_classes, D))[y]
    return (X - X.mean(axis=0)) / X.std(axis=0), y


def balanced(y):
    counts = np.bincount(y)
    return (len(y) / (len(counts) * counts))[y]


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("C", [0.01, 1.0])
def test_logistic_regression_is_that_of_scikit_learn(seed, C):
    X, y = uneven(seed=seed)
    ours = build_head("logistic", C=C, class_weight="balanced").fit(X, y)
    theirs = LogisticRegression(C=C, class_weight="balanced", tol=1e-10, max_iter=10_000).fit(X, y)
    assert relative(ours.predict_proba(X), theirs.predict_proba(X)) < 1e-6
    assert relative(ours.coef_ - ours.coef_.mean(axis=0), theirs.coef_ - theirs.coef_.mean(axis=0)) < 1e-5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_classes", [2, 3])
def test_ridge_regression_is_that_of_scikit_learn(seed, n_classes):
    X, y = uneven(n_classes, seed=seed)
    ours = build_head("ridge", alpha=10.0, class_weight="balanced").fit(X, y)
    theirs = RidgeClassifier(alpha=10.0, class_weight="balanced").fit(X, y)
    scores = X @ ours.coef_.T + ours.intercept_
    assert relative(scores if n_classes > 2 else scores[:, 1], theirs.decision_function(X)) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_the_linear_svm_is_that_of_liblinear_whose_intercept_is_all_but_free(seed):
    X, y = uneven(2, seed=seed)
    ours = build_head("linear_svm", C=0.1, class_weight="balanced").fit(X, y)
    how = {"intercept_scaling": 100.0, "tol": 1e-8, "max_iter": 1_000_000, "dual": False}
    theirs = LinearSVC(C=0.1, class_weight="balanced", **how).fit(X, y)
    assert relative(ours.coef_[1], theirs.coef_[0]) < 1e-3
    assert ours.intercept_[1] == pytest.approx(theirs.intercept_[0], rel=1e-2)


@pytest.mark.parametrize("seed", range(2))
def test_the_linear_svm_minimises_the_weighted_loss(seed):
    """liblinear weighs the positive class of one-versus-rest alone; the loss here weighs every row by its class."""
    X, y = uneven(seed=seed)
    ours = build_head("linear_svm", C=0.1, class_weight="balanced").fit(X, y)
    weights = balanced(y)
    for c in range(3):
        sign = np.where(y == c, 1.0, -1.0)

        def loss(theta, sign=sign):
            margin = np.maximum(0.0, 1.0 - sign * (X @ theta[:D] + theta[D]))
            by_score = -0.2 * weights * margin * sign
            gradient = np.append(X.T @ by_score + theta[:D], by_score.sum())
            return 0.1 * weights @ margin**2 + theta[:D] @ theta[:D] / 2, gradient

        best = minimize(loss, np.zeros(D + 1), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10})
        assert relative(np.append(ours.coef_[c], ours.intercept_[c]), best.x) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_the_rbf_svm_is_that_of_scikit_learn(seed):
    X, y = uneven(2, seed=seed)
    more = np.random.default_rng(seed).normal(size=(500, D))
    ours = build_head("rbf_svm", C=1.0, gamma=0.5, class_weight="balanced", seed=0).fit(X, y)
    theirs, plain = (SVC(C=1.0, gamma=ours.gamma_, class_weight=each).fit(X, y) for each in ("balanced", None))
    distances = ((more[:, None] - ours.origin_ - ours.support_vectors_) ** 2).sum(axis=2)
    decision = (np.exp(-ours.gamma_ * distances) @ ours.coef_ + ours.intercept_).ravel()
    expected = theirs.decision_function(more)
    assert min(relative(decision, expected), relative(-decision, expected)) < 1e-6
    assert np.array_equal(ours.predict(more), theirs.predict(more))
    assert relative(plain.decision_function(more), expected) > 0.1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shrinkage", [0.01, 0.3])
def test_lda_has_equal_priors(seed, shrinkage):
    X, y = uneven(seed=seed)
    ours = build_head("lda", shrinkage=shrinkage, class_weight="balanced").fit(X, y)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.full(3, 1 / 3)).fit(X, y)
    assert relative(ours.predict_proba(X), theirs.predict_proba(X)) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_naive_bayes_has_equal_priors(seed):
    X, y = uneven(seed=seed)
    ours = build_head("naive_bayes", smoothing=0.01, class_weight="balanced").fit(X, y)
    weights = balanced(y)
    mean = weights @ X / weights.sum()
    largest = float(
        (weights @ (X - mean) ** 2 / weights.sum()).max()
    )  # scikit-learn adds to the variance without weights
    theirs = GaussianNB(priors=np.full(3, 1 / 3), var_smoothing=0.01 * largest / X.var(axis=0).max()).fit(X, y)
    assert relative(ours.predict_proba(X), theirs.predict_proba(X)) < 1e-8


def test_the_nearest_mean_has_equal_priors_and_a_deviation_of_all_classes_alike():
    X, y = uneven()
    ours = build_head("centroid", metric="euclidean", class_weight="balanced").fit(X, y)
    means = np.stack([X[y == c].mean(axis=0) for c in range(3)])
    spread = np.sqrt(np.mean([((X[y == c] - means[c]) ** 2).mean(axis=0) for c in range(3)], axis=0))
    distance = (((X[:, None] - means) / (spread + np.median(spread))) ** 2).sum(axis=2)
    expected = np.exp(-distance / 2)
    assert relative(ours.predict_proba(X), expected / expected.sum(axis=1, keepdims=True)) < 1e-6


def test_votes_of_neighbours_weigh_as_their_class():
    X, y = uneven()
    ours = build_head("knn", k=15, metric="euclidean", class_weight="balanced").fit(X, y)
    nearest = np.argsort(((X[:, None] - X) ** 2).sum(axis=2), axis=1)[:, :15]
    votes = np.stack([(balanced(y)[nearest] * (y[nearest] == c)).sum(axis=1) for c in range(3)], axis=1) + 1 / 3
    assert ours.predict_proba(X) == pytest.approx(votes / votes.sum(axis=1, keepdims=True), rel=1e-9)


def test_the_network_minimises_the_weighted_loss():
    """Against rows that weigh as n / (C n_c) by hand: the loss is that of `solvers.batched_networks`, row by row."""
    X, y = uneven()
    how = {"hidden": 16, "epochs": 3, "learning_rate": 0.01, "seed": 0}
    ours = build_head("mlp", class_weight="balanced", **how).fit(X, y)
    by_hand = build_head("mlp", **how).fit(X, y, sample_weight=balanced(y))
    assert ours.predict_proba(X) == pytest.approx(by_hand.predict_proba(X), rel=1e-12)
    assert relative(build_head("mlp", **how).fit(X, y).predict_proba(X), by_hand.predict_proba(X)) > 0.01


@pytest.mark.parametrize("name", [name for name in HEADS if name != "mlp"])
def test_a_sweep_weighs_classes_by_the_rows_it_trains_on(name):
    X, y = uneven()
    grid = build_grid(name, {}, "balanced")[:6]
    assert all(setting["class_weight"] == "balanced" for setting in grid)
    found = sweep(name, X, y, rounds=val_round(180, N), grid=grid, seed=1)
    assert found.params["class_weight"] == "balanced"
    params = {key: value for key, value in found.params.items() if key != "temperature"}
    alone = build_head(name, seed=1, **params).fit(X[:180], y[:180])
    right = np.mean(alone.predict(X[180:]) == y[180:])
    assert found.val["accuracy"] == pytest.approx(right)


def test_a_head_of_scikit_learn_gets_its_class_weight_where_it_has_one():
    forest, neighbours = "sklearn.ensemble.RandomForestClassifier", "sklearn.neighbors.KNeighborsClassifier"
    assert build_grid(forest, {}, "balanced") == [{"class_weight": "balanced"}]
    assert build_grid(neighbours, {}, "balanced") == [{}]
    assert (weighs_classes(forest), weighs_classes(neighbours), weighs_classes("knn")) == (True, False, True)
    assert build_grid(forest, {"class_weight": [None]}, "balanced") == [{"class_weight": None}]
    X, y = uneven()
    found = sweep(forest, X, y, rounds=val_round(180, N), grid=build_grid(forest, {}, "balanced"), seed=2)
    theirs = RandomForestClassifier(class_weight="balanced", random_state=2).fit(X, y)
    assert np.array_equal(found.head.predict_proba(X), theirs.predict_proba(X))
