import numpy as np
import pytest
from sklearn.base import clone
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid

import featurecache.classify.solvers.class_moments
from featurecache.classify.heads.centroid import CentroidHead
from featurecache.classify.heads.naive_bayes import NaiveBayesHead
from featurecache.classify.selection.holdouts import fold_rounds, val_round
from featurecache.classify.solvers.class_moments import class_moments, row_moments, weighted_mean


def rows(n=90, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 7)) * np.geomspace(1, 0.1, 7) + np.eye(7)[y] + 3.0, y


def test_the_moments_of_every_round_are_those_of_its_rows(monkeypatch):
    monkeypatch.setattr(featurecache.classify.solvers.class_moments, "BLOCK", 16)
    X, y = rows()
    weights = np.random.default_rng(1).integers(1, 4, 90).astype(float)
    rounds = fold_rounds(np.arange(90) % 4)
    for held_out, found in zip(rounds, class_moments(X + 1e4, y, 3, weights, rounds), strict=True):
        for c in range(3):
            own = ~held_out & (y == c)
            mean = np.average(X[own], axis=0, weights=weights[own])
            assert found.counts[c] == weights[own].sum()
            assert found.means[c] - 1e4 == pytest.approx(mean)
            variance = np.average((X[own] - mean) ** 2, axis=0, weights=weights[own])
            assert found.variances[c] == pytest.approx(variance, rel=1e-6)
        repeated = np.repeat(X[~held_out], weights[~held_out].astype(int), axis=0)
        assert found.total() == pytest.approx(repeated.var(axis=0), rel=1e-6)


@pytest.mark.parametrize("n_held_out", [30, 16])
def test_the_moments_of_rows_without_classes_are_those_of_numpy(monkeypatch, n_held_out):
    """Blocks of 16 rows: of 30 rows that are held out at the end, one block has rows of both parts; of 16, none."""
    monkeypatch.setattr(featurecache.classify.solvers.class_moments, "BLOCK", 16)
    X, weights = rows()[0] + 1e4, np.random.default_rng(1).uniform(0.5, 2.0, 90)
    for n_rows, found in (
        (90, row_moments(X, weights)),
        (90 - n_held_out, row_moments(X, weights, val_round(90 - n_held_out, 90))),
    ):
        mean = np.average(X[:n_rows], axis=0, weights=weights[:n_rows])
        variance = np.average((X[:n_rows] - mean) ** 2, axis=0, weights=weights[:n_rows])
        assert found[0].mean() - 1e4 == pytest.approx(mean - 1e4)
        assert found[0].total() == pytest.approx(variance, rel=1e-6)
    assert weighted_mean(X, weights) == pytest.approx(row_moments(X, weights)[0].mean(), rel=1e-12)


def test_a_constant_column_has_no_variance_and_a_class_without_rows_none():
    X, y = rows()
    X[:, 2] = 1e6
    found = class_moments(X.astype(np.float32), y, 4, np.ones(90))[0]
    assert found.total()[2] == 0.0
    assert (found.counts[3], found.means[3].any(), found.variances[3].any()) == (0.0, False, False)


def test_features_are_never_changed():
    X, y = rows()
    before = X.copy()
    for head in (CentroidHead(), NaiveBayesHead()):
        head.fit(X, y)
        list(type(head).try_grid([head], X, y, val_round(60, 90)))
    assert np.array_equal(X, before)


@pytest.mark.parametrize("smoothing", [1e-9, 0.1])
def test_naive_bayes_is_that_of_scikit_learn(smoothing):
    X, y = rows()
    weights = np.random.default_rng(1).uniform(0.5, 2.0, 90)
    theirs = GaussianNB(var_smoothing=smoothing).fit(X, y)
    assert NaiveBayesHead(smoothing=smoothing).fit(X, y).predict_proba(X) == pytest.approx(theirs.predict_proba(X))
    weighted = NaiveBayesHead(smoothing=1e-9).fit(X, y, sample_weight=weights).predict_proba(X)
    assert weighted == pytest.approx(GaussianNB().fit(X, y, sample_weight=weights).predict_proba(X), abs=1e-6)


def test_naive_bayes_refuses_to_be_sure_of_a_constant_column():
    with pytest.raises(ValueError, match=r"smoothing=0 is not possible: use more than 0, for instance 0\.01"):
        NaiveBayesHead(smoothing=0).fit(*rows())


@pytest.mark.parametrize("shrink", [0.0, 1.0, 3.0])
def test_the_shrunken_centroids_are_those_of_the_paper(shrink):
    X, y = rows()
    n, deviation = len(X), np.sqrt(np.mean([X[y == c].var(axis=0) for c in range(3)], axis=0))
    scale = deviation + np.median(deviation)
    step = np.sqrt(1 / 30 - 1 / n)
    d = np.array([(X[y == c].mean(axis=0) - X.mean(axis=0)) / (step * scale) for c in range(3)])
    centroids = X.mean(axis=0) + step * scale * np.sign(d) * np.maximum(np.abs(d) - shrink, 0)
    distance = (((X[:, None, :] - centroids) / scale) ** 2).sum(axis=2)
    scores = CentroidHead(shrink=shrink).fit(X, y).decision_function(X)
    ours, theirs = scores - scores[:, :1], -0.5 * (distance - distance[:, :1])
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_without_shrinking_the_nearest_centroid_is_that_of_scikit_learn():
    X, y = rows()
    deviation = np.sqrt(np.mean([X[y == c].var(axis=0) for c in range(3)], axis=0))
    Z = (X - X.mean(axis=0)) / (deviation + np.median(deviation))
    assert (CentroidHead().fit(X, y).predict(X) == NearestCentroid().fit(Z, y).predict(Z)).all()


def test_shrunken_away_everything_the_prior_decides():
    X, y = rows()
    assert (CentroidHead(shrink=1e6).fit(X, np.minimum(y, 1)).predict(X) == 1).all()


def test_wrong_settings_of_a_centroid_are_refused():
    with pytest.raises(ValueError, match="metric='manhattan' is unknown: use 'euclidean' or 'cosine'"):
        CentroidHead(metric="manhattan").fit(*rows())
    with pytest.raises(ValueError, match="shrink=-1 is not possible: use 0, for none, or more"):
        CentroidHead(shrink=-1).fit(*rows())


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 0.2}])
@pytest.mark.parametrize("head", [CentroidHead(shrink=0.5), CentroidHead(metric="cosine"), NaiveBayesHead()])
def test_folds_from_one_pass_are_the_heads_fitted_alone(head, class_weight, agree):
    X, y = rows()
    y = np.where(np.arange(90) < 4, 2, np.minimum(y, 1))  # a fold lacks most of the rare class, others have little else
    weights = np.random.default_rng(1).integers(0, 3, 90).astype(float)
    weights[:4] = 1.0
    head = clone(head).set_params(class_weight=class_weight)
    rounds = fold_rounds(np.arange(90) % 5)
    for _, number, trial in type(head).try_grid([head], X, y, rounds, weights):
        held_out = rounds[number]
        alone = clone(head).set_params(**trial.decided)
        alone.fit(X[~held_out], y[~held_out], sample_weight=weights[~held_out])
        agree(trial, alone, X[held_out], y[held_out], near=1e-8)


def test_a_class_that_a_round_does_not_train_on_is_left_out_of_it():
    X, y = rows()
    held_out = (y == 2) | (np.arange(90) < 10)
    trial = next(NaiveBayesHead.try_grid([NaiveBayesHead()], X, y, [held_out]))[2]
    assert trial.classes.tolist() == [0, 1]
    assert (trial.sums.n_rows, len(trial.sums.named)) == (held_out.sum(), 2)


def test_evidence_that_is_counted_thousands_of_times_is_divided_by_the_temperature():
    """Equal columns: with d copies of each the scores, and so the best temperature, are d times as large."""
    rng, y = np.random.default_rng(0), np.arange(300) % 3
    X = rng.normal(size=(300, 2)) + 1.2 * np.eye(3, 2)[y]
    found = {}
    for copies in (1, 3000):
        wide = np.repeat(X, copies, axis=1).astype(np.float32)
        ((_, _, trial),) = NaiveBayesHead.try_grid([NaiveBayesHead()], wide, y, val_round(200, 300))
        found[copies] = trial
    assert found[3000].decided["temperature"] == pytest.approx(3000 * found[1].decided["temperature"], rel=1e-2)
    assert found[3000].sums.loss == pytest.approx(found[1].sums.loss, rel=1e-3)
    assert not found[3000].hint


def test_scores_that_say_nothing_of_val_are_told_of():
    rng, y = np.random.default_rng(0), np.arange(300) % 3
    X = rng.normal(size=(300, 4)) + 3.0 * np.eye(3, 4)[y]
    turned = np.where(np.arange(300) < 200, y, (y + 1) % 3)
    ((_, _, trial),) = NaiveBayesHead.try_grid([NaiveBayesHead()], X, turned, val_round(200, 300))
    assert trial.hint.startswith("The temperature ")
