import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import featurecache.classify.arrays.softmax
import featurecache.classify.evaluation.calibration
from featurecache.classify.arrays.softmax import log_softmax, softmax, two_columns
from featurecache.classify.evaluation.calibration import (
    NO_FIT,
    combine_temperatures,
    find_temperature,
    fit_temperature,
    fit_tempering,
    log_proba,
    temper,
    temper_head,
    tempering_effect,
)
from featurecache.classify.evaluation.metrics import SMALLEST_PROBABILITY
from featurecache.classify.heads.logistic import LogisticHead


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
    after = temper(proba_test, temperature)
    effect = tempering_effect(y_test, proba_test, after, proba_test.argmax(axis=1), temperature)
    assert effect["temperature"] == temperature
    assert effect["log_loss_after"] < 0.8 * effect["log_loss_before"]
    assert effect["ece_after"] < 0.02 < 0.1 < effect["ece_before"]


def test_tempering_is_a_power_and_changes_no_prediction():
    _, proba = overconfident(500, 2)
    assert temper(proba, 2.0) == pytest.approx(np.sqrt(proba) / np.sqrt(proba).sum(axis=1, keepdims=True), abs=1e-3)
    assert np.array_equal(temper(proba, 2.0).argmax(axis=1), proba.argmax(axis=1))
    assert temper(proba, 1.0) is proba


@pytest.mark.parametrize("factor", [1e-5, 1.0, 1e5])
def test_scores_in_another_unit_have_that_times_the_temperature(factor):
    rng = np.random.default_rng(0)
    scores, y = rng.normal(size=(400, 3)), np.arange(400) % 3
    scores += np.eye(3)[y]
    found, unit = find_temperature(factor * scores, y), find_temperature(scores, y)
    assert found.temperature == pytest.approx(factor * unit.temperature, rel=1e-3)
    assert found.certainty == pytest.approx(unit.certainty, rel=1e-3)
    assert not found.at_bound


def test_scores_that_say_nothing_end_at_a_bound_and_equal_ones_say_nothing():
    scores = np.eye(2)[np.arange(400) % 2]
    assert find_temperature(scores, 1 - np.arange(400) % 2).at_bound
    assert find_temperature(np.full((400, 2), 0.3, np.float32), np.arange(400) % 2) == NO_FIT


def test_the_temperature_is_the_minimum_and_the_certainty_its_curvature(monkeypatch):
    rng = np.random.default_rng(0)
    scores, y = 5.0 * (rng.normal(size=(300, 4)) + np.eye(4)[np.arange(300) % 4]), np.arange(300) % 4
    monkeypatch.setattr(featurecache.classify.evaluation.calibration, "BLOCK_NUMBERS", 40)
    monkeypatch.setattr(featurecache.classify.arrays.softmax, "BLOCK_NUMBERS", 40)  # blocks of ten rows

    def loss(log_temperature):
        log_p = log_softmax(scores / np.exp(log_temperature))
        return -(log_p[np.arange(300), y].sum() + log_p.mean())

    found = find_temperature(scores, y)
    best = minimize_scalar(loss, bounds=(0.0, 5.0), method="bounded", options={"xatol": 1e-9}).x
    assert found.temperature == pytest.approx(np.exp(best), rel=1e-4)
    step = 1e-3
    second = (loss(best + step) - 2 * loss(best) + loss(best - step)) / step**2
    assert found.certainty == pytest.approx(second, rel=1e-2)


def test_the_temperature_is_within_its_accuracy_of_the_optimum_for_scores_of_any_kind(monkeypatch):
    module = featurecache.classify.evaluation.calibration
    rng = np.random.default_rng(7)
    for _ in range(100):
        n_rows, n_classes = int(rng.integers(5, 400)), int(rng.integers(2, 12))
        y = rng.integers(0, n_classes, n_rows)
        scores = rng.normal(size=(n_rows, n_classes)) * 10 ** rng.uniform(-3, 3)
        scores[np.arange(n_rows), y] += rng.uniform(0, 4) * scores.std()
        with monkeypatch.context() as patch:
            found = find_temperature(scores, y)
            patch.setattr(module, "LAST_STEP", 1e-9)
            best = find_temperature(scores, y)
        guessed = find_temperature(scores, y, guess=best.temperature * 10 ** rng.uniform(-4, 4))
        assert guessed.at_bound == best.at_bound
        assert best.at_bound or abs(np.log(guessed.temperature / best.temperature)) < module.ACCURACY
        assert found.at_bound == best.at_bound
        assert best.at_bound or abs(np.log(found.temperature / best.temperature)) < module.ACCURACY


def test_a_row_whose_scores_are_far_from_those_of_all_others_gives_no_warning():
    """From the temperature of the one row, a step to that of the others is longer than a number has digits for."""
    scores = np.zeros((300, 2))
    scores[:, 1], scores[0, 1] = -1.0, -1e4
    found = find_temperature(scores, np.zeros(300, dtype=int))
    # At the optimum (1 + 1 / N) times the sum of the expected scores is the mean of all scores, by the unknown row.
    odd = 1.0 / (1.0 + np.exp(1.0 / found.temperature))
    assert 299 * odd * 301 / 300 == pytest.approx((1e4 + 299) / 600, rel=1e-3)


def test_the_temperatures_of_parts_combine_to_that_of_the_whole():
    rng = np.random.default_rng(1)
    scores, y = 3.0 * (rng.normal(size=(6000, 4)) + np.eye(4)[np.arange(6000) % 4]), np.arange(6000) % 4
    part = rng.integers(0, 5, 6000)
    fits = [find_temperature(scores[part == which], y[part == which]) for which in range(5)]
    assert combine_temperatures(fits) == pytest.approx(fit_temperature(scores, y), rel=2e-3)
    assert combine_temperatures([NO_FIT]) == 1.0


def test_the_smallest_probabilities_are_not_lost_to_tempering():
    scores = np.array([[0.0, -300.0, -200.0]])
    assert temper(softmax(scores), 100.0) == pytest.approx(softmax(scores / 100.0))
    assert log_proba(np.array([[0.75, 0.25, 0.0]]))[0, 2] == pytest.approx(np.log(SMALLEST_PROBABILITY))
    assert log_proba(np.array([[1.0, 1e-30, 0.0]]))[0].tolist() == pytest.approx([0.0, np.log(1e-30), np.log(1e-30)])
    assert log_proba(np.array([[1.0, 1e-30]]), floor=1e-7)[0, 1] == pytest.approx(np.log(1e-7))


def test_a_head_with_scores_is_tempered_by_them_though_float32_has_rounded_to_zero():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.2], [0.1, 1.1]], dtype=np.float32)
    head = LogisticHead().fit(X, np.array([0, 1, 0, 1]))
    head.coef_, head.intercept_ = np.float32(500.0) * np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    proba = head.predict_proba(X[:2])
    assert proba.min() == 0.0
    expected = softmax(500.0 * X[:2].astype(np.float64) / 250.0)
    assert temper_head(head, X[:2], proba, 250.0) == pytest.approx(expected)
    assert temper_head(head, X[:2], proba, 250.0, floor=1e-7) == pytest.approx(temper(proba, 250.0, floor=1e-7))
    assert temper_head(head, X[:2], proba, 1.0) is proba


def test_tempering_lifts_zeros_a_little():
    found = temper(np.array([[1.0, 0.0]]), 2.0)
    assert 0 < found[0, 1] < 1e-3
    assert np.isfinite(fit_tempering(np.eye(2), np.array([0, 1])))
