import numpy as np
import pytest
from sklearn.svm import SVC

import classify.svm
from classify.svm import RBFSVMHead, inverse_root


def clouds(n=150, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, 5)) + 1.5 * np.eye(5)[y], y


def scaled(X):
    return (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_the_exact_method_is_scikit_learns_svc(n_classes):
    X, y = clouds(n_classes=n_classes)
    new = clouds(n_classes=n_classes, seed=1)[0]
    theirs = SVC(C=3.0, gamma=0.5 / 5).fit(scaled(X), y)
    ours = RBFSVMHead(C=3.0, gamma=0.5).fit(X, y)
    scaled_new = (new - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())
    assert ours.method_ == "exact"
    # libsvm stops at 1e-3.
    assert ours.decision_function(new) == pytest.approx(theirs.decision_function(scaled_new), abs=2e-3)
    assert (ours.predict(X) == theirs.predict(scaled(X))).all()


def test_nystroem_with_every_row_a_landmark_is_the_whole_kernel():
    X, y = clouds()
    few = RBFSVMHead(method="nystroem", n_landmarks=100, random_state=0).fit(X, y)
    every = RBFSVMHead(method="nystroem", n_landmarks=150, random_state=0).fit(X, y)
    assert few.support_vectors_.shape == (100, 5)
    assert every.score(X, y) > 0.8
    assert np.mean(few.predict(X) == every.predict(X)) > 0.9


def test_auto_takes_nystroem_beyond_the_exact_rows(monkeypatch):
    X, y = clouds()
    assert RBFSVMHead(random_state=0).fit(X, y).method_ == "exact"
    monkeypatch.setattr(classify.svm, "EXACT_ROWS", 100)
    assert RBFSVMHead(random_state=0).fit(X, y).method_ == "nystroem"


def test_a_sweep_takes_the_method_of_its_refit(monkeypatch):
    X, y = clouds()
    monkeypatch.setattr(classify.svm, "EXACT_ROWS", 120)
    head = RBFSVMHead(random_state=0)
    list(RBFSVMHead.try_grid([head], X[:100], y[:100], X[100:], y[100:]))
    assert head.method_ == RBFSVMHead(random_state=0).fit(X, y).method_ == "nystroem"


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method='guess' is unknown: use 'auto', 'exact' or 'nystroem'"):
        RBFSVMHead(method="guess").fit(*clouds())


def test_a_libsvm_that_is_cut_short_says_so(monkeypatch):
    monkeypatch.setattr(classify.svm, "EXACT_ITERATIONS", 1)
    head = RBFSVMHead(C=10.0).fit(*clouds())
    assert not head.converged_
    assert head.note_.startswith("C=10, gamma=1: Solver terminated early")


def test_the_inverse_root_undoes_its_matrix_and_survives_lost_rank():
    A = np.random.default_rng(0).normal(size=(6, 4))
    K = A @ A.T
    root = inverse_root(K)
    assert root @ K @ root @ A == pytest.approx(A)
