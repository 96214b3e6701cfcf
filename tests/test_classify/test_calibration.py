import numpy as np
import pytest

from classify.calibration import (
    fit_temperature,
    fit_tempering,
    log_softmax,
    softmax,
    temper,
    tempering_effect,
    two_columns,
)


def test_softmax_of_a_toy_and_of_huge_scores():
    assert softmax(np.log(np.array([[1.0, 2.0, 5.0]]))) == pytest.approx(np.array([[0.125, 0.25, 0.625]]))
    assert softmax(np.array([[1e4, 0.0]])) == pytest.approx(np.array([[1.0, 0.0]]))
    assert log_softmax(np.array([[1e4, 0.0]])) == pytest.approx(np.array([[0.0, -1e4]]))


def test_scores_of_two_classes_get_their_second_column():
    assert two_columns(np.array([2.0, -1.0])).tolist() == [[0.0, 2.0], [0.0, -1.0]]


def test_without_an_error_the_temperature_stays_away_from_certainty():
    scores = np.eye(2)[np.arange(50) % 2] * 2.0
    proba = softmax(scores / fit_temperature(scores, np.arange(50) % 2))
    # 50 rows right and one that may be either: 50.5 of 51.
    assert proba.max(axis=1) == pytest.approx(np.full(50, 50.5 / 51), abs=1e-4)


def test_the_temperature_that_made_the_labels_is_found_again():
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=(20_000, 4)) * 2
    y = (softmax(log_odds).cumsum(axis=1) < rng.uniform(size=(20_000, 1))).sum(axis=1)
    assert fit_temperature(3.0 * log_odds, y) == pytest.approx(3.0, rel=0.05)


def test_no_row_at_all_leaves_the_scores_as_they_are():
    assert fit_temperature(np.empty((0, 3)), np.empty(0, dtype=int)) == 1.0


def overconfident(n, seed):
    """Labels drawn from softmax(s), probabilities softmax(2.5 s)."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 4)) * 1.5
    y = (softmax(scores).cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1)
    return y, softmax(2.5 * scores)


def test_tempering_on_val_mends_overconfidence_on_test():
    y_val, proba_val = overconfident(10_000, 0)
    y_test, proba_test = overconfident(10_000, 1)
    temperature = fit_tempering(proba_val, y_val)
    assert temperature == pytest.approx(2.5, rel=0.06)
    effect = tempering_effect(y_test, proba_test, proba_test.argmax(axis=1), temperature)
    assert effect["temperature"] == temperature
    assert effect["log_loss_after"] < 0.8 * effect["log_loss_before"]
    assert effect["ece_after"] < 0.02 < 0.1 < effect["ece_before"]


def test_tempering_is_a_power_and_changes_no_prediction():
    _, proba = overconfident(500, 2)
    assert temper(proba, 2.0) == pytest.approx(np.sqrt(proba) / np.sqrt(proba).sum(axis=1, keepdims=True), abs=1e-3)
    assert np.array_equal(temper(proba, 2.0).argmax(axis=1), proba.argmax(axis=1))
    assert temper(proba, 1.0) is proba


def test_tempering_lifts_zeros_a_little():
    found = temper(np.array([[1.0, 0.0]]), 2.0)
    assert 0 < found[0, 1] < 1e-3
    assert np.isfinite(fit_tempering(np.eye(2), np.array([0, 1])))
