"""scikit-learn is the referee: on standardised features the optimum is the same."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.svm import LinearSVC

from classify.centroid import CentroidHead
from classify.lda import LDAHead
from classify.logistic import LogisticHead
from classify.ridge import RidgeHead
from classify.svm import LinearSVMHead


def features(n=90, feature_dim=8, n_classes=3):
    rng = np.random.default_rng(4)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, feature_dim)) * np.geomspace(1, 0.05, feature_dim) + 0.5 * np.eye(feature_dim)[y] + 3.0
    return X, y


def standardised(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


def centred(scores):
    return scores - scores.mean(axis=1, keepdims=True)


# More rows than columns, and fewer: the two sides of the eigendecomposition.
@pytest.fixture(params=[(90, 8), (30, 60)], ids=["tall", "wide"])
def data(request):
    return features(*request.param)


@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
def test_logistic_has_the_optimum_of_scikit_learn(data, C):
    X, y = data
    ours = LogisticHead(C=C, tol=1e-8).fit(X, y)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(standardised(X), y)
    assert ours.converged_
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(standardised(X)), abs=1e-4)


def test_logistic_for_two_classes_has_half_the_c_of_scikit_learn():
    X, y = features(n_classes=2)
    ours = LogisticHead(C=0.1, tol=1e-8).fit(X, y)
    theirs = LogisticRegression(C=0.05 * 4, tol=1e-10, max_iter=5000).fit(standardised(X), y)
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(standardised(X)), abs=1e-4)


@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_ridge_has_the_solution_of_scikit_learn(data, alpha):
    X, y = data
    theirs = RidgeClassifier(alpha=alpha).fit(standardised(X), y)
    assert RidgeHead(alpha=alpha).fit(X, y).decision_function(X) == pytest.approx(
        theirs.decision_function(standardised(X)), abs=1e-6
    )


@pytest.mark.parametrize("C", [1e-3, 0.1])
def test_linear_svm_has_the_optimum_of_scikit_learn(data, C):
    X, y = data
    ours = LinearSVMHead(C=C, tol=1e-9).fit(X, y)
    # A large intercept_scaling takes the penalty off their intercept.
    theirs = LinearSVC(C=C, dual=True, intercept_scaling=100.0, tol=1e-10, max_iter=200_000, random_state=0)
    theirs.fit(standardised(X), y)
    assert ours.decision_function(X) == pytest.approx(theirs.decision_function(standardised(X)), abs=1e-3)


@pytest.mark.parametrize("shrinkage", [0.01, 0.5, 1.0])
def test_lda_has_the_discriminant_of_scikit_learn(data, shrinkage):
    X, y = data
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(standardised(X), y)
    ours = LDAHead(shrinkage=shrinkage).fit(X, y)
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(standardised(X)), abs=1e-6)
    assert centred(ours.decision_function(X)) == pytest.approx(
        centred(theirs.decision_function(standardised(X))), rel=1e-4, abs=1e-4
    )


def test_lda_without_shrinkage_ignores_directions_without_variance():
    X, y = features(30, 60)
    assert np.isfinite(LDAHead(shrinkage=0.0).fit(X, y).coef_).all()


def test_the_nearest_centroid_is_that_of_scikit_learn(data):
    X, y = data
    theirs = NearestCentroid().fit(standardised(X), y)
    assert (CentroidHead().fit(X, y).predict(X) == theirs.predict(standardised(X))).all()


def test_the_centroid_by_cosine_is_the_smallest_angle():
    X, y = features()
    Z = standardised(X)
    means = np.stack([Z[y == c].mean(axis=0) for c in range(3)])
    cosine = (Z @ means.T) / np.linalg.norm(means, axis=1) / np.linalg.norm(Z, axis=1, keepdims=True)
    assert (CentroidHead(metric="cosine").fit(X, y).predict(X) == cosine.argmax(axis=1)).all()


def test_an_unknown_metric_is_refused():
    X, y = features()
    with pytest.raises(ValueError, match="metric='manhattan' is unknown: use 'euclidean' or 'cosine'"):
        CentroidHead(metric="manhattan").fit(X, y)


@pytest.mark.parametrize("head", [LogisticHead(), RidgeHead(), LinearSVMHead(), LDAHead(), CentroidHead()])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_linear_head_is_one_row_per_class_on_raw_features(head, n_classes):
    X, y = features(n_classes=n_classes)
    head.fit(X.astype(np.float32), y)
    assert head.coef_.shape == (n_classes, 8)
    assert head.intercept_.shape == (n_classes,)
    assert head.coef_.dtype == np.float32
    assert (head.predict(X) == (X @ head.coef_.T + head.intercept_).argmax(axis=1)).all()


@pytest.mark.parametrize("head", [LogisticHead(), RidgeHead(), LinearSVMHead(), LDAHead(), CentroidHead()])
def test_the_units_of_the_columns_change_nothing(head):
    X, y = features()
    before = head.fit(X, y).predict_proba(X)
    changed = X * np.geomspace(1e-3, 1e3, 8)
    assert head.fit(changed, y).predict_proba(changed) == pytest.approx(before, abs=1e-3)


# Not LDA: its shrinkage aims at the mean variance, which a constant column lowers.
@pytest.mark.parametrize("head", [LogisticHead(), RidgeHead(), LinearSVMHead(), CentroidHead()])
def test_a_constant_column_changes_nothing(head):
    X, y = features()
    before = head.fit(X, y).predict_proba(X)
    wider = np.column_stack([X, np.full(len(X), 7.0)])
    assert head.fit(wider, y).predict_proba(wider) == pytest.approx(before, abs=1e-6)
