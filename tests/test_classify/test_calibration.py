import numpy as np
import pytest

from classify.calibration import fit_temperature, log_softmax, softmax, two_columns


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
