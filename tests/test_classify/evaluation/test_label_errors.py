"""Labels that were flipped on purpose are found, and the arithmetic is that of the paper and of plain ridge fits."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from featurecache.classify.arrays.scaling import fit_scaling
from featurecache.classify.evaluation.label_errors import confident_joint, expected_wrong, find_doubtful, held_out_proba
from featurecache.classify.selection.splits import assign_folds


def flipped_set(n_rows: int = 600, n_classes: int = 4, separation: float = 1.2):
    random = np.random.default_rng(0)
    truth = np.arange(n_rows) % n_classes
    X = random.normal(size=(n_rows, 12)) + separation * random.normal(size=(n_classes, 12))[truth]
    y, flipped = truth.copy(), random.choice(n_rows, n_rows // 20, replace=False)
    y[flipped] = (y[flipped] + random.integers(1, n_classes, len(flipped))) % n_classes
    return X, y, truth, set(flipped.tolist())


def folds_of(y) -> np.ndarray:
    return assign_folds([str(i) for i in range(len(y))], y, 5)


def test_flipped_labels_are_found_with_what_they_were():
    X, y, truth, flipped = flipped_set()
    doubt = find_doubtful(held_out_proba(X, y, folds_of(y), alpha=10.0), y)
    found = set(doubt.rows.tolist())
    assert len(found & flipped) >= 0.8 * len(flipped)
    assert len(found & flipped) >= 0.8 * len(found)
    right = [row in flipped for row in doubt.rows]
    assert (doubt.suggested[right] == truth[doubt.rows[right]]).mean() > 0.9


def test_the_most_doubtful_stands_first():
    X, y, _, _ = flipped_set()
    doubt = find_doubtful(held_out_proba(X, y, folds_of(y)), y)
    margins = doubt.label_proba - doubt.suggested_proba
    assert margins.tolist() == sorted(margins)


def test_nothing_is_doubtful_where_the_classes_are_far_apart():
    X, _, truth, _ = flipped_set(separation=5.0)
    assert len(find_doubtful(held_out_proba(X, truth, folds_of(truth)), truth).rows) == 0


def test_labels_of_classes_that_cannot_be_told_apart_are_not_doubtful():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(400, 5)), np.arange(400) % 2
    assert len(find_doubtful(held_out_proba(X, y, folds_of(y)), y).rows) == 0


def test_the_confident_joint_by_hand():
    """Thresholds are 0.7 for class 0 and 0.6 for class 1; the third row is confidently of the other class."""
    y = np.array([0, 0, 0, 1, 1])
    p = np.array([0.9, 0.9, 0.3, 0.5, 0.3])
    assert confident_joint(np.column_stack([p, 1 - p]), y).tolist() == [[2, 1], [0, 1]]
    assert expected_wrong(np.column_stack([p, 1 - p]), y).tolist() == [1, 0]


@pytest.mark.needs_package
def test_the_confident_joint_is_cleanlabs():
    count = pytest.importorskip("cleanlab.count")
    X, y, _, _ = flipped_set(separation=0.6)
    proba = held_out_proba(X, y, folds_of(y))
    assert confident_joint(proba, y).tolist() == count.compute_confident_joint(y, proba, calibrate=False).tolist()


@pytest.mark.parametrize("feature_dim", [6, 90])
def test_held_out_scores_are_those_of_ridges_fitted_without_the_fold(feature_dim):
    random = np.random.default_rng(1)
    y = np.arange(60) % 3
    X = random.normal(size=(60, feature_dim)) + random.normal(size=(3, feature_dim))[y]
    fold, Z = folds_of(y), fit_scaling(X).apply(X)
    scores = np.empty((60, 3))
    for k in range(5):
        head = Ridge(alpha=7.0).fit(Z[fold != k], 2 * np.eye(3)[y[fold != k]] - 1)
        scores[fold == k] = head.predict(Z[fold == k])
    log_proba = np.log(held_out_proba(X, y, fold, alpha=7.0))
    ours, theirs = log_proba - log_proba.mean(axis=1, keepdims=True), scores - scores.mean(axis=1, keepdims=True)
    temperature = np.linalg.norm(theirs) / np.linalg.norm(ours)
    assert ours * temperature == pytest.approx(theirs, rel=1e-6, abs=1e-8)
