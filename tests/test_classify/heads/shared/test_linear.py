"""scikit-learn is the referee: on the same scaled features the optimum is the same."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from featurecache.classify.arrays.blocks import Rows
from featurecache.classify.arrays.scaling import fit_scaling
from featurecache.classify.heads.lda import LDAHead
from featurecache.classify.heads.linear_svm import LinearSVMHead
from featurecache.classify.heads.logistic import LogisticHead
from featurecache.classify.heads.ridge import RidgeHead
from featurecache.classify.selection.holdouts import fold_rounds, val_round


def features(n=90, feature_dim=8, n_classes=3):
    rng = np.random.default_rng(4)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, feature_dim)) * np.geomspace(1, 0.05, feature_dim) + 0.5 * np.eye(feature_dim)[y] + 3.0
    return X, y


def standardised(X):
    return fit_scaling(X).apply(X)


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


@pytest.mark.parametrize("head", [LogisticHead(), RidgeHead(), LinearSVMHead(), LDAHead()])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_linear_head_is_one_row_per_class_on_raw_features(head, n_classes):
    X, y = features(n_classes=n_classes)
    head.fit(X.astype(np.float32), y)
    assert head.coef_.shape == (n_classes, 8)
    assert head.intercept_.shape == (n_classes,)
    assert head.coef_.dtype == np.float32
    assert (head.predict(X) == (X @ head.coef_.T + head.intercept_).argmax(axis=1)).all()


@pytest.mark.parametrize("head", [LogisticHead(), RidgeHead(), LinearSVMHead(), LDAHead()])
@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_of_all_columns_changes_nothing(head, unit):
    X, y = features()
    before = head.fit(X, y).predict_proba(X)
    changed = unit * X
    assert head.fit(changed, y).predict_proba(changed) == pytest.approx(before, abs=1e-3)


# Not LDA: its shrinkage aims at the mean variance, which a constant column lowers.
@pytest.mark.parametrize("head", [LogisticHead(), RidgeHead(), LinearSVMHead()])
def test_a_constant_column_changes_nothing(head):
    X, y = features()
    before = head.fit(X, y).predict_proba(X)
    wider = np.column_stack([X, np.full(len(X), 7.0)])
    assert head.fit(wider, y).predict_proba(wider) == pytest.approx(before, abs=1e-6)


HEADS = {
    "logistic": [LogisticHead(C=C, tol=1e-7) for C in (1e-3, 0.1, 10.0)],
    "linear_svm": [LinearSVMHead(C=C, tol=1e-7) for C in (1e-3, 0.1, 10.0)],
    "ridge": [RidgeHead(alpha=alpha) for alpha in (0.1, 10.0)],
    "lda": [LDAHead(shrinkage=shrinkage) for shrinkage in (0.1, 0.9)],
}
EVERY_HEAD = pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)


@EVERY_HEAD
def test_all_settings_in_all_folds_are_each_setting_in_each_fold(heads, agree):
    X, y = features()
    rounds = fold_rounds(np.arange(90) // 3 % 4)
    trials = {(s, r): trial for s, r, trial in type(heads[0]).try_grid(heads, X, y, rounds)}
    assert sorted(trials) == [(s, r) for s in range(len(heads)) for r in range(4)]
    for (setting, number), trial in trials.items():
        alone = clone(heads[setting]).set_params(**trial.decided).fit(X[~rounds[number]], y[~rounds[number]])
        agree(trial, alone, X[rounds[number]], y[rounds[number]], near=1e-4)


@pytest.mark.parametrize("shape", [(6, 20), (19, 8)])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("shrinkage", [0.0, 0.2, 1.0])
def test_lda_without_scatter_within_classes_is_the_nearest_mean(shape, times, shrinkage):
    """One row a class, or copies of it, which rounding tells apart."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=shape).astype(np.float32) + np.float32(0.3)
    X, y = np.repeat(means, times, axis=0), np.repeat(np.arange(len(means)), times)
    new = means[rng.integers(0, len(means), 200)] + 0.4 * rng.normal(size=(200, shape[1])).astype(np.float32)
    (scaling,) = Rows(X, np.ones((1, len(X)))).scalings
    theirs = KNeighborsClassifier(1).fit(scaling.apply(X), y).predict(scaling.apply(new))
    assert (LDAHead(shrinkage=shrinkage).fit(X, y).predict(new) == theirs).all()


@EVERY_HEAD
def test_a_fold_without_a_class_is_solved_among_the_others(heads):
    X, y = features()
    y = np.array(["ant", "bee", "cat"])[y]
    y[:3] = "dog"
    rounds = fold_rounds(np.arange(90) // 3 % 3)
    for _, number, trial in type(heads[0]).try_grid(heads, X, y, rounds):
        there = sorted(set(y[~rounds[number]]))
        assert trial.classes.tolist() == there
        assert (trial.sums.n_rows, len(trial.sums.named)) == (30, len(there))


@EVERY_HEAD
def test_weights_count_rows_more_than_once(heads):
    X, y = features()
    times = np.random.default_rng(0).integers(0, 4, size=90)
    times[:3] = 1
    for head in heads:
        weighted = clone(head).fit(X, y, sample_weight=times)
        repeated = clone(head).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
        assert weighted.coef_ == pytest.approx(repeated.coef_, rel=1e-3, abs=1e-4)
        assert weighted.intercept_ == pytest.approx(repeated.intercept_, rel=1e-3, abs=1e-3)


@EVERY_HEAD
def test_balanced_weighs_every_class_alike(heads):
    X, y = features()
    X, y = np.concatenate([X, X[y == 0], X[y == 0]]), np.concatenate([y, y[y == 0], y[y == 0]])
    for head in heads:
        by_name = clone(head).set_params(class_weight="balanced").fit(X, y)
        by_number = clone(head).set_params(class_weight={0: 150 / 270, 1: 150 / 90, 2: 150 / 90}).fit(X, y)
        assert by_name.coef_ == pytest.approx(by_number.coef_, rel=1e-4, abs=1e-6)
        assert by_name.coef_ != pytest.approx(clone(head).fit(X, y).coef_, rel=1e-2)


def test_settings_with_other_class_weights_stand_in_one_grid():
    X, y = features()
    heads = [LogisticHead(C=C, class_weight=weight) for C in (0.1, 1.0) for weight in (None, "balanced", {0: 5.0})]
    trials = list(LogisticHead.try_grid(heads, X, y, val_round(60, 90)))
    assert sorted(setting for setting, _, _ in trials) == list(range(6))
    with pytest.raises(ValueError, match="class_weight='even' is unknown: use None, 'balanced' or a dict"):
        LogisticHead(class_weight="even").fit(X, y)


@pytest.mark.parametrize("weights", [np.ones(5), -np.ones(90), np.zeros(90), np.full(90, np.nan)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="sample_weight"):
        RidgeHead().fit(*features(), sample_weight=weights)


@EVERY_HEAD
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tensor_is_an_array(heads, dtype):
    X, y = features()
    X = X.astype(dtype)
    for head in heads:
        head = clone(head) if dtype == np.float64 or not hasattr(head, "tol") else clone(head).set_params(tol=1e-3)
        expected, found = clone(head).fit(X, y), clone(head).fit(torch.from_numpy(X), y)
        assert isinstance(found.coef_, np.ndarray)
        assert found.coef_.dtype == dtype
        precision = 1e-6 if dtype == np.float64 else 2e-2
        assert found.predict_proba(torch.from_numpy(X)) == pytest.approx(expected.predict_proba(X), abs=precision)


@EVERY_HEAD
def test_a_memory_map_gives_the_numbers_of_the_array(heads, tmp_path):
    X, y = features()
    X = X.astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    heads = [clone(head).set_params(tol=1e-3) if hasattr(head, "tol") else head for head in heads]
    trials = [type(heads[0]).try_grid(heads, each, y, val_round(60, 90)) for each in (X, mapped)]
    for (_, _, expected), (_, _, found) in zip(*trials, strict=True):
        assert (found.sums.loss, found.sums.squares) == (expected.sums.loss, expected.sums.squares)


def test_half_precision_is_enough_for_features():
    X, y = features()
    exact, half = LogisticHead().fit(X, y), LogisticHead().fit(X.astype(np.float16), y)
    assert half.coef_.dtype == np.float32
    assert half.predict_proba(X.astype(np.float16)) == pytest.approx(exact.predict_proba(X), abs=1e-2)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_tensor_with_a_hole_is_refused(spoilt):
    X, y = features()
    X[50, 2] = spoilt
    with pytest.raises(ValueError, match="Input X contains NaN or infinity"):
        LogisticHead().fit(torch.from_numpy(X), y)


def test_fitting_many_is_fitting_each():
    X, y = features()
    heads = [RidgeHead(alpha=1.0), RidgeHead(alpha=10.0, class_weight="balanced")]
    none_held_out = [np.zeros(len(y), dtype=bool)]
    assert sorted(place for place, _, _ in RidgeHead.try_grid(heads, X, y, none_held_out)) == [0, 1]
    for head in heads:
        assert head.coef_ == pytest.approx(clone(head).fit(X, y).coef_)
