from functools import partial
from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.svm import SVC

import featurecache.classify.heads.rbf_svm
from featurecache.classify.arrays.softmax import softmax
from featurecache.classify.evaluation.calibration import fit_temperature
from featurecache.classify.evaluation.metrics import score
from featurecache.classify.heads.rbf_svm import RBFSVMHead
from featurecache.classify.selection.holdouts import fold_rounds, val_round
from featurecache.classify.solvers.kernels import rbf, squared_distances, whitening
from featurecache.classify.solvers.nystroem import solve_landmarks
from featurecache.classify.solvers.pairwise_coupling import SLOPE, couple


def clouds(n=150, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n, 5)) + 1.5 * np.eye(5)[y], y


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_the_exact_method_decides_between_pairs_as_scikit_learns_svc(n_classes):
    X, y = clouds(n_classes=n_classes)
    new = clouds(n_classes=n_classes, seed=1)[0]
    gamma = 0.5 / X.var(axis=0).sum()
    theirs = SVC(C=3.0, gamma=gamma, decision_function_shape="ovo").fit(X, y)
    ours = RBFSVMHead(C=3.0, gamma=0.5).fit(X, y)
    assert ours.method_ == "exact"
    # libsvm stops at 1e-3.
    assert ours._decide(new).squeeze() == pytest.approx(theirs.decision_function(new), abs=3e-3)
    assert np.mean(ours.predict(X) == theirs.predict(X)) > 0.98


def test_pairs_that_agree_are_coupled_to_the_probabilities_they_come_from():
    p = np.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
    pairs = list(combinations(range(4), 2))
    decisions = np.stack([np.log(p[:, i] / p[:, j]) / SLOPE for i, j in pairs], axis=1)
    assert np.exp(couple(decisions, np.arange(4), 4)) == pytest.approx(p, rel=1e-6)


def test_pairs_that_disagree_are_coupled_to_the_least_disagreement():
    r = {(0, 1): 0.9, (0, 2): 0.4, (1, 2): 0.8}
    decisions = np.array([[np.log(one / (1 - one)) / SLOPE for one in r.values()]])
    found = np.exp(couple(decisions, np.arange(3), 3))[0]

    def disagreement(p):
        return sum(((1 - one) * p[i] - one * p[j]) ** 2 for (i, j), one in r.items())

    steps = np.linspace(0.0, 1.0, 201)
    best = min(disagreement((a, b, 1 - a - b)) for a in steps for b in steps if a + b <= 1)
    assert found.sum() == pytest.approx(1.0)
    assert disagreement(found) <= best + 1e-9


def test_a_class_that_was_not_trained_on_is_all_but_impossible():
    scores = couple(np.array([[0.5]]), np.array([0, 2]), 3)
    assert scores.shape == (1, 3)
    assert scores[0, 1] == scores.min() < -20


def test_coupled_scores_are_better_probabilities_than_votes():
    X, y = clouds(n=600)
    new, truth = clouds(n=600, seed=1)
    head = RBFSVMHead(C=1.0).fit(X, y)
    votes = np.zeros((600, 4))
    for pair, (i, j) in enumerate(combinations(range(4), 2)):
        won = head._decide(new)[:, pair] > 0
        votes[:, i] += won
        votes[:, j] += ~won
    losses = []
    for scores in (head._scores(new), votes):
        proba = softmax(scores / fit_temperature(scores, truth))
        losses.append(score(truth, proba, proba.argmax(axis=1))["log_loss"])
    assert losses[0] < 0.95 * losses[1]


def test_nystroem_with_every_row_a_landmark_is_the_whole_kernel():
    X, y = clouds()
    few = RBFSVMHead(method="nystroem", n_landmarks=100, random_state=0).fit(X, y)
    every = RBFSVMHead(method="nystroem", n_landmarks=150, random_state=0).fit(X, y)
    assert few.support_vectors_.shape == (100, 5)
    assert every.score(X, y) > 0.8
    assert np.mean(few.predict(X) == every.predict(X)) > 0.9


@pytest.mark.parametrize("method", ["exact", "nystroem"])
def test_every_setting_and_fold_of_a_sweep_is_the_head_fitted_alone(method):
    X, y = clouds()
    settings = [{"gamma": gamma, "C": C} for gamma in (0.2, 1.0) for C in (0.5, 5.0)]
    # With as many landmarks as rows nothing is left to chance but the rows themselves.
    heads = [RBFSVMHead(method=method, n_landmarks=150, random_state=0, **one) for one in settings]
    rounds = fold_rounds(np.arange(150) % 3)
    agreed = []
    for setting, number, trial in RBFSVMHead.try_grid(heads, X, y, rounds):
        held_out = rounds[number]
        alone = RBFSVMHead(method=method, n_landmarks=150, random_state=0, **settings[setting], **trial.decided)
        proba = alone.fit(X[~held_out], y[~held_out]).predict_proba(X[held_out])
        losses = score(y[held_out], proba, proba.argmax(axis=1))
        agreed += [abs(losses["log_loss"] - trial.sums.loss / 50), abs(losses["brier"] - trial.sums.squares / 50)]
    assert len(agreed) == 2 * 12
    # By landmarks, the unit of the distance is the variance of all rows in folds, of the training rows in a fit.
    assert max(agreed) < (1e-3 if method == "exact" else 0.05)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("method", ["exact", "nystroem"])
def test_rows_without_weight_and_labels_that_are_held_out_have_no_say_in_a_sweep(method, class_weight, agree):
    X, y = clouds()
    y = np.where(np.arange(150) < 100, np.arange(150) % 3, 2)  # val is of one class
    weights = np.where(np.arange(150) % 5 == 0, 0.0, 1.0)
    wrong = np.where(weights[:, None] == 0.0, X + 50.0, X)
    wrong[100:] = X[100:]
    fresh = partial(RBFSVMHead, method=method, n_landmarks=40, random_state=0, class_weight=class_weight)
    ((_, _, trial),) = RBFSVMHead.try_grid([fresh()], wrong, y, val_round(100, 150), weights)
    alone = fresh(**trial.decided).fit(wrong[:100], y[:100], sample_weight=weights[:100])
    agree(trial, alone, X[100:], y[100:], near=1e-3)


def test_auto_takes_nystroem_beyond_the_exact_rows_and_classes(monkeypatch):
    X, y = clouds()
    assert RBFSVMHead(random_state=0).fit(X, y).method_ == "exact"
    monkeypatch.setattr(featurecache.classify.heads.rbf_svm, "EXACT_ROWS", 100)
    assert RBFSVMHead(random_state=0).fit(X, y).method_ == "nystroem"
    monkeypatch.setattr(featurecache.classify.heads.rbf_svm, "EXACT_ROWS", 1000)
    monkeypatch.setattr(featurecache.classify.heads.rbf_svm, "EXACT_CLASSES", 3)
    assert RBFSVMHead(random_state=0).fit(X, y).method_ == "nystroem"


def test_a_sweep_takes_the_method_of_its_refit(monkeypatch):
    X, y = clouds()
    monkeypatch.setattr(featurecache.classify.heads.rbf_svm, "EXACT_ROWS", 120)
    head = RBFSVMHead(random_state=0)
    list(RBFSVMHead.try_grid([head], X, y, val_round(100, 150)))
    assert head.method_ == RBFSVMHead(random_state=0).fit(X, y).method_ == "nystroem"


def test_landmarks_are_not_drawn_from_val_where_train_has_enough():
    X, y = clouds()
    head = RBFSVMHead(method="nystroem", n_landmarks=50, random_state=0)
    list(RBFSVMHead.try_grid([head], X, y, val_round(100, 150)))
    rows = head.support_vectors_ + head.origin_
    assert np.abs(rows[:, None] - X[:100]).max(axis=2).min(axis=1).max() < 1e-9


def test_many_classes_are_solved_as_least_squares():
    rng = np.random.default_rng(0)
    columns, codes, weights = rng.normal(size=(200, 6)), np.arange(200) % 60, rng.integers(1, 4, 200)
    signs = np.where(codes[:, None] == np.arange(60), 1.0, -1.0)
    ((_, _, coef, intercept, _),) = solve_landmarks(columns, codes, weights[None].astype(float), [0.7], 60)
    theirs = Ridge(alpha=0.5 / 0.7).fit(columns, signs, sample_weight=weights)
    assert pytest.approx(theirs.coef_) == coef.T
    assert intercept == pytest.approx(theirs.intercept_)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method='guess' is unknown: use 'auto', 'exact' or 'nystroem'"):
        RBFSVMHead(method="guess").fit(*clouds())


def test_a_libsvm_that_is_cut_short_says_so(monkeypatch):
    monkeypatch.setattr(featurecache.classify.heads.rbf_svm, "EXACT_ITERATIONS", 1)
    head = RBFSVMHead(C=10.0, gamma=1.0).fit(*clouds())
    assert not head.converged_
    assert head.note_.startswith("C=10, gamma=1: Solver terminated early")


def test_whitening_undoes_its_matrix_and_survives_lost_rank():
    A = np.random.default_rng(0).normal(size=(6, 4))
    K = A @ A.T
    root = whitening(K)
    assert root @ K @ root @ A == pytest.approx(A)


def test_the_kernel_is_one_on_itself_and_less_elsewhere():
    X, _ = clouds()
    K = rbf(squared_distances(X, X), 0.3)
    direct = np.exp(-0.3 * ((X[:, None] - X) ** 2).sum(axis=2))
    assert pytest.approx(direct) == K
