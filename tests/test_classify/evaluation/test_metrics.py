import numpy as np
import pytest
import sklearn.metrics as referee
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from featurecache.classify.evaluation.metrics import (
    accuracy_interval,
    expected_calibration_error,
    one_vs_rest_auc,
    score,
    score_by_class,
    score_fully,
)

TOY_Y = np.array([0, 0, 1, 1])
TOY_PROBA = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])


def test_a_toy_worked_by_hand():
    found = score(TOY_Y, TOY_PROBA, TOY_PROBA.argmax(axis=1))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    # Class 0: 2 hits, 1 false alarm: 4/5. Class 1: 1 hit, 1 miss: 2/3.
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.6, 0.3, 0.8]).mean())
    assert found["brier"] == pytest.approx(2 * (0.01 + 0.16 + 0.49 + 0.04) / 4)
    # Each confidence stands alone in its bin: gaps 0.1, 0.4, 0.7 and 0.2, a quarter of the rows each.
    assert found["ece"] == pytest.approx((0.1 + 0.4 + 0.7 + 0.2) / 4)
    assert all(type(value) is float for value in found.values())


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 60))
def test_scikit_learn_agrees(seed, n_classes, n):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n)])
    proba = rng.dirichlet(np.ones(n_classes), size=len(y))
    predicted = proba.argmax(axis=1)
    found = score(y, proba, predicted)
    assert found["accuracy"] == pytest.approx(referee.accuracy_score(y, predicted))
    assert found["balanced_accuracy"] == pytest.approx(referee.balanced_accuracy_score(y, predicted))
    assert found["macro_f1"] == pytest.approx(referee.f1_score(y, predicted, average="macro"))
    assert found["log_loss"] == pytest.approx(referee.log_loss(y, np.clip(proba, 1.2e-7, 1)), rel=1e-3)


def test_confidence_that_matches_accuracy_has_no_calibration_error():
    proba = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(np.array([0, 0, 0, 1]), proba, np.zeros(4, dtype=int)) == pytest.approx(0.0)


def test_certain_and_wrong_is_finite():
    assert np.isfinite(score(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([1, 1]))["log_loss"])


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match="same, non-zero length"):
        score(TOY_Y, TOY_PROBA[:3], TOY_PROBA.argmax(axis=1))
    with pytest.raises(ValueError, match="same, non-zero length"):
        score(TOY_Y[:0], TOY_PROBA[:0], TOY_Y[:0])


@pytest.mark.parametrize(("n_correct", "n"), [(0, 10), (10, 10), (7, 10), (9540, 10_000)])
def test_the_interval_is_wilsons(n_correct, n):
    assert accuracy_interval(n_correct, n) == pytest.approx(
        proportion_confint(n_correct, n, method="wilson"), abs=1e-12
    )


@pytest.mark.parametrize(("n_correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_an_impossible_count_is_refused(n_correct, n):
    with pytest.raises(ValueError, match="right answers out of"):
        accuracy_interval(n_correct, n)


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(10, 60))
def test_ranking_and_the_table_by_class_are_those_of_scikit_learn(seed, n_classes, n):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n)])
    proba = rng.dirichlet(np.ones(n_classes), size=len(y))
    predicted = proba.argmax(axis=1)
    found = score_fully(y, proba, predicted)
    expected = (
        referee.roc_auc_score(y, proba[:, 1])
        if n_classes == 2
        else referee.roc_auc_score(y, proba, multi_class="ovr", average="macro")
    )
    assert found["auc"] == pytest.approx(expected)
    assert ("top5_accuracy" in found) == (n_classes > 5)
    if n_classes > 5:
        assert found["top5_accuracy"] == pytest.approx(referee.top_k_accuracy_score(y, proba, k=5))
    precision, recall, _, support = referee.precision_recall_fscore_support(y, predicted, zero_division=0)
    table = score_by_class(y, predicted, n_classes)
    assert [row["support"] for row in table] == support.tolist()
    assert [row["recall"] for row in table] == pytest.approx(recall.tolist())
    assert [row["precision"] or 0.0 for row in table] == pytest.approx(precision.tolist())


def test_equal_probabilities_count_half_in_the_auc():
    y = np.array([0, 0, 1, 1])
    # Of the four pairs of class 1 against 0 by p_1: 0.4 > 0.1, 0.4 = 0.4 (a half), 0.8 > 0.1, 0.8 > 0.4.
    p = np.array([0.1, 0.4, 0.4, 0.8])
    assert one_vs_rest_auc(y, np.column_stack([1 - p, p])) == pytest.approx(3.5 / 4)


def test_a_class_that_does_not_occur_has_neither_recall_nor_part_in_the_auc():
    y, predicted = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2])
    table = score_by_class(y, predicted, 4)
    assert table[1] == {"support": 0, "precision": None, "precision_ci": None, "recall": None, "recall_ci": None}
    assert table[2]["precision"] == pytest.approx(2 / 3)
    assert table[2]["precision_ci"] == pytest.approx(proportion_confint(2, 3, method="wilson"))
    proba = np.eye(4)[predicted]
    # Class 0: ranks a half above (0, 0), so 3/4; class 2: 3/4 as well.
    assert one_vs_rest_auc(y, proba) == pytest.approx(3 / 4)


def test_of_one_class_nothing_can_be_ranked():
    assert "auc" not in score_fully(np.zeros(3, dtype=int), np.full((3, 2), 0.5), np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="one class"):
        one_vs_rest_auc(np.zeros(3, dtype=int), np.full((3, 2), 0.5))
