import numpy as np
import pytest
import sklearn.metrics as referee
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from classify.metrics import accuracy_interval, expected_calibration_error, score

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
