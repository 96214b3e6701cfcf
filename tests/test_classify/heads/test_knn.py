import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import featurecache.classify.solvers.neighbours
from featurecache.classify.evaluation.metrics import log_loss
from featurecache.classify.heads.knn import KNNHead
from featurecache.classify.heads.saving.folder import load_head, save_head
from featurecache.classify.selection.holdouts import fold_rounds
from featurecache.classify.solvers.neighbours import find_neighbours, round_neighbours


def rows(n=60, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 5)) + 1.0).astype(dtype), np.arange(n) % 2


@pytest.fixture(params=["whole", "blocks", "strips and no room"])
def blocks(request, monkeypatch):
    if request.param != "whole":
        monkeypatch.setattr(featurecache.classify.solvers.neighbours, "SQUARE", (7, 5))
        monkeypatch.setattr(featurecache.classify.solvers.neighbours, "FLAT", (4, 9))
    if request.param == "strips and no room":
        monkeypatch.setattr(featurecache.classify.solvers.neighbours, "STRIP", 3)
        monkeypatch.setattr(featurecache.classify.solvers.neighbours, "SPARE", 0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_neighbours_are_scikit_learns(blocks, metric):
    (X, y), new = rows(), rows(20, seed=1)[0]
    theirs = KNeighborsClassifier(5, metric=metric, algorithm="brute").fit(X, y)
    ours = KNNHead(k=5, metric=metric).fit(X, y)
    found = find_neighbours(new, X, 5, metric, X.mean(axis=0))
    distance, index = theirs.kneighbors(new)
    assert (found.rows == index).all()
    # Half a vote of prior for each of two equally frequent classes.
    votes = 5 * theirs.predict_proba(new)
    assert ours.predict_proba(new) == pytest.approx((votes + 0.5) / 6)
    assert (ours.predict(new) == theirs.predict(new)).all()
    nearness = 1.0 - distance if metric == "cosine" else -(distance**2) / 2
    assert found.similarity == pytest.approx(nearness)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_far_from_zero_the_neighbours_are_still_found_in_float32(metric):
    X, _ = rows()
    far = (X + 1000.0).astype(np.float32)
    exact = find_neighbours(far.astype(np.float64), far.astype(np.float64), 1, metric, far.mean(axis=0))
    assert (exact.rows[:, 0] == np.arange(60)).all()
    assert (find_neighbours(far, far, 1, "euclidean", far.mean(axis=0)).rows[:, 0] == np.arange(60)).all()


def test_folds_share_a_table_and_never_see_their_own_rows(blocks):
    X, _ = rows()
    fold = np.arange(60) % 3
    tables = list(round_neighbours(X, fold_rounds(fold), 6, ["cosine", "euclidean"], X.mean(axis=0)))
    for number, table in enumerate(tables):
        others = np.flatnonzero(fold != number)
        for metric, found in table.items():
            alone = find_neighbours(X[fold == number], X[others], 6, metric, X.mean(axis=0))
            assert (found.rows == others[alone.rows]).all()


def test_rows_that_come_nearer_and_nearer_are_all_found(blocks):
    """The worst order: every block is nearer than those before, so that no row has room for what it meets."""
    X = np.linspace(3.0, 0.1, 60)[:, None] * np.array([1.0, 0.0]) + np.array([0.0, 1.0])
    new, origin = np.array([[0.0, 1.0], [0.05, 1.0]]), np.zeros(2)
    for metric in ("cosine", "euclidean"):
        found = find_neighbours(new, X, 7, metric, origin)
        assert found.rows.tolist() == [list(range(59, 52, -1))] * 2


def test_rounds_that_overlap_are_right_as_well():
    X, _ = rows()
    overlapping = [np.arange(60) < 20, np.arange(60) < 30]
    for held_out, table in zip(overlapping, round_neighbours(X, overlapping, 4, ["cosine"], X[0]), strict=True):
        others = np.flatnonzero(~held_out)
        alone = find_neighbours(X[held_out], X[others], 4, "cosine", X[0])
        assert (table["cosine"].rows == others[alone.rows]).all()


def test_every_setting_of_a_sweep_is_the_head_fitted_alone(agree):
    X, y = rows()
    settings = [{"k": k, "metric": m, "sharpness": s} for k in (1, 7, 200) for m in ("cosine", "euclidean")
                for s in (None, 0.1)]  # fmt: skip
    rounds = fold_rounds(np.arange(60) // 15)
    for setting, number, trial in KNNHead.try_grid([KNNHead(**one) for one in settings], X, y, rounds):
        held_out = rounds[number]
        alone = KNNHead(**settings[setting], **trial.decided).fit(X[~held_out], y[~held_out])
        agree(trial, alone, X[held_out], y[held_out])


def test_more_neighbours_than_rows_are_all_rows():
    X, y = np.eye(4), np.array([0, 0, 0, 1])
    assert KNNHead(k=100).fit(X, y).predict_proba(X) == pytest.approx(np.tile([3.75 / 5, 1.25 / 5], (4, 1)))


def test_equal_votes_go_to_the_more_frequent_class():
    X = np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.3], [-2.0, 0.0], [-1.5, -0.4]])
    head = KNNHead(k=5).fit(X[[0, 0, 2, 3, 4]], np.array([0, 0, 1, 1, 1]))
    assert head.predict(np.array([[1.0, 0.0]])).tolist() == [1]


def test_sharp_votes_weigh_the_nearest_most():
    X, y = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]]), np.array([0, 1, 1])
    found = KNNHead(k=3, sharpness=0.2).fit(X, y).predict_proba(X[:1])
    less = np.exp((0.6 - 1.0) / 0.2)
    assert found[0] == pytest.approx(np.array([1 + 1 / 3, 2 * less + 2 / 3]) / (2 + 2 * less))


@pytest.mark.parametrize("heaviest", [1.0, 3.0])
def test_settings_tried_together_vote_as_each_alone_whatever_rows_count(heaviest, agree):
    X, y = rows()
    weights = np.random.default_rng(0).uniform(0.2, heaviest, size=60)
    settings = [{"k": k, "sharpness": s, "class_weight": {0: 1, 1: 2}} for k in (9, 2, 9, 30) for s in (None, 0.3)]
    held_out, tried = np.arange(60) >= 40, [KNNHead(**one) for one in settings]
    for setting, _, trial in KNNHead.try_grid(tried, X, y, [held_out], weights):
        alone = KNNHead(**settings[setting], **trial.decided)
        alone.fit(X[~held_out], y[~held_out], sample_weight=weights[~held_out])
        agree(trial, alone, X[held_out], y[held_out])


def test_a_row_of_weight_three_is_three_rows():
    X, y = rows(20)
    weights = np.where(np.arange(20) < 5, 3, 1)
    weighted = KNNHead(k=6).fit(X, y, sample_weight=weights)
    repeated = KNNHead(k=6).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    assert weighted.predict_proba(X) == pytest.approx(repeated.predict_proba(X))


def test_balanced_classes_get_the_same_prior_and_votes_in_proportion():
    X, y = np.eye(4), np.array([0, 0, 0, 1])
    assert KNNHead(k=4, class_weight="balanced").fit(X, y).predict_proba(X[:1]) == pytest.approx(
        np.array([[2 + 0.5, 2 + 0.5]]) / 5
    )


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_temperature_is_a_power_of_the_share_of_votes(metric, dtype):
    (X, y), new = rows(dtype=dtype), rows(20, seed=1, dtype=dtype)[0]
    theirs = KNeighborsClassifier(9, metric=metric, algorithm="brute").fit(X, y).predict_proba(new)
    votes = (9 * theirs + 0.5) / 10
    head = KNNHead(k=9, metric=metric, temperature=0.4).fit(X, y)
    assert head.predict_proba(new) == pytest.approx(votes**2.5 / (votes**2.5).sum(axis=1, keepdims=True), rel=1e-5)
    assert (head.predict(new) == votes.argmax(axis=1)).all()
    assert KNNHead(k=9).fit(X, y).predict_proba(new).dtype == dtype


def test_a_sweep_finds_the_temperature_of_votes_that_are_too_cautious():
    rng, y = np.random.default_rng(0), np.arange(600) % 3
    X = rng.normal(size=(600, 8)) + 2.5 * np.eye(8)[y]
    held_out = np.arange(600) >= 400
    ((_, _, trial),) = KNNHead.try_grid([KNNHead(k=200)], X, y, [held_out])
    fitted = KNNHead(k=200).fit(X[:400], y[:400])
    before = log_loss(y[400:], fitted.predict_proba(X[400:]))
    after = log_loss(y[400:], fitted.set_params(**trial.decided).predict_proba(X[400:]))
    assert trial.decided["temperature"] < 0.6
    assert trial.sums.loss / 200 == pytest.approx(after)
    assert after < 0.8 * before


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0}])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_rows_without_weight_and_labels_that_are_held_out_have_no_say_in_a_sweep(blocks, agree, class_weight, metric):
    X, _ = rows()
    rng = np.random.default_rng(3)
    y, weights = (rng.random(60) < 0.3).astype(int), np.where(rng.random(60) < 0.4, 0.0, 1.0)
    settings = [{"k": k, "sharpness": s} for k in (3, 40) for s in (None, 0.2)]
    heads = [KNNHead(**one, metric=metric, class_weight=class_weight) for one in settings]
    rounds = fold_rounds(np.arange(60) // 5 % 4)
    for setting, number, trial in KNNHead.try_grid(heads, X, y, rounds, weights):
        held_out = rounds[number]
        alone = KNNHead(**settings[setting], **trial.decided, metric=metric, class_weight=class_weight)
        alone.fit(X[~held_out], y[~held_out], weights[~held_out])
        agree(trial, alone, X[held_out], y[held_out])


def with_zeros():
    """Twelve rows, numbers 1, 4, 7 and 10 of which are zeros, three of class 0; some cosines are negative."""
    X = np.random.default_rng(0).normal(size=(12, 4))
    X[1::3] = 0.0
    return X, np.array([0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1])


@pytest.mark.parametrize("sharpness", [None, 0.1])
@pytest.mark.parametrize(("k", "voting"), [(1, 1.0), (2, 2.0), (100, 4.0)])
def test_rows_of_zeros_are_the_neighbours_of_one_another_by_their_shares(k, voting, sharpness):
    X, y = with_zeros()
    for order in (np.arange(12), np.arange(12)[::-1]):
        head = KNNHead(k=k, sharpness=sharpness).fit(X[order], y[order])
        expected = voting * np.array([3 / 4, 1 / 4]) + np.array([0.5, 0.5])
        assert head.predict_proba(np.zeros((1, 4)))[0] == pytest.approx(expected / (voting + 1))


def test_a_row_of_zeros_without_another_has_the_prior_alone_in_whatever_order_rows_come():
    X, y = np.eye(4)[:, :3] + 0.1, np.array([0, 1, 1, 1])
    for order in (slice(None), slice(None, None, -1)):
        for sharpness in (None, 0.1):
            head = KNNHead(k=1, sharpness=sharpness).fit(X[order], y[order])
            assert head.predict_proba(np.zeros((2, 3))) == pytest.approx(np.array([[0.25, 0.75]] * 2))


def test_a_row_of_zeros_is_no_neighbour_of_another(blocks):
    X, y = with_zeros()
    there = X.any(axis=1)
    new = np.random.default_rng(1).normal(size=(9, 4))
    both = KNNHead(k=6).fit(X, y), KNNHead(k=6).fit(X[there], y[there])
    votes = [
        7 * head.predict_proba(new) - np.bincount(labels) / len(labels)
        for head, labels in zip(both, (y, y[there]), strict=True)
    ]
    assert votes[0] == pytest.approx(votes[1])


def test_by_distance_a_row_of_zeros_is_like_any_other():
    X, y = with_zeros()
    theirs = KNeighborsClassifier(3, algorithm="brute").fit(X[[0, 1, 2, 3, 5]], y[[0, 1, 2, 3, 5]])
    ours = KNNHead(k=3, metric="euclidean").fit(X[[0, 1, 2, 3, 5]], y[[0, 1, 2, 3, 5]])
    new = np.random.default_rng(1).normal(size=(9, 4)) * 0.3
    assert 4 * ours.predict_proba(new) - np.array([3, 2]) / 5 == pytest.approx(3 * theirs.predict_proba(new))


def test_rows_of_zeros_are_in_a_sweep_what_they_are_in_a_fit(blocks, agree):
    X, y = np.concatenate([with_zeros()[0]] * 3), np.random.default_rng(0).integers(0, 2, 36)
    X[:12] += np.where(X[:12].any(axis=1), 0.1, 0.0)[:, None]
    X[24:] *= -1.0
    rounds = fold_rounds(np.arange(36) % 4)
    settings = [{"k": k, "metric": metric} for k in (2, 9, 40) for metric in ("cosine", "euclidean")]
    for setting, number, trial in KNNHead.try_grid([KNNHead(**one) for one in settings], X, y, rounds):
        held_out = rounds[number]
        if settings[setting]["metric"] == "euclidean":  # equal distances to equal rows are not ours to order
            continue
        alone = KNNHead(**settings[setting], **trial.decided).fit(X[~held_out], y[~held_out])
        agree(trial, alone, X[held_out], y[held_out])


def test_a_saved_head_knows_which_of_its_rows_are_zeros(tmp_path):
    X, y = with_zeros()
    head, new = KNNHead(k=2).fit(X, y), np.vstack([X, np.zeros((1, 4))])
    save_head(head, tmp_path / "head", meta={})
    assert (load_head(tmp_path / "head").head.predict_proba(new) == head.predict_proba(new)).all()


def test_unknown_metrics_and_no_neighbours_are_refused():
    X, y = rows()
    with pytest.raises(ValueError, match="metric='manhattan' is unknown: use 'cosine' or 'euclidean'"):
        KNNHead(metric="manhattan").fit(X, y)
    with pytest.raises(ValueError, match="k=0 is not possible: use 1 neighbour or more"):
        KNNHead(k=0).fit(X, y)
