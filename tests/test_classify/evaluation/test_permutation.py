"""Paired permutation tests against all exchanges by hand, McNemar's test and simulated equals."""

from itertools import combinations, product

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.metrics import log_loss as reference_log_loss

from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA, METRICS, preference
from featurecache.classify.evaluation.metrics import log_losses, score
from featurecache.classify.evaluation.permutation import N_EXCHANGES, Answers, permutation_tests
from featurecache.classify.evaluation.ranking import rank_heads
from featurecache.classify.evaluation.significance import compare_with_best, paired_test

OTHERS = [metric for metric in METRICS if metric != ACCURACY]


def heads(n, n_heads=2, n_classes=3, *, seed=0, alike=0.7):
    """Random labels (n,), and heads that are right about some of them, alike in part."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    y[:n_classes] = np.arange(n_classes)
    first = rng.dirichlet(np.ones(n_classes), n) + np.eye(n_classes)[y] * rng.random((n, 1))
    found = []
    for _ in range(n_heads):
        own = rng.dirichlet(np.ones(n_classes), n)
        proba = np.where(rng.random((n, 1)) < alike, first, own)
        proba /= proba.sum(axis=1, keepdims=True)
        found.append(Answers(proba.argmax(axis=1), log_losses(y, proba)))
    return y, found


def by_hand(metric, y, a, b, units):
    """The share of all exchanges of units that make the difference as large."""
    differences = []
    for signs in product([False, True], repeat=int(units.max()) + 1):
        turned = np.array(signs)[units]
        ours = Answers(np.where(turned, b.predicted, a.predicted), np.where(turned, b.losses, a.losses))
        theirs = Answers(np.where(turned, a.predicted, b.predicted), np.where(turned, a.losses, b.losses))
        differences.append(abs(ours.value(metric, y) - theirs.value(metric, y)))
    return np.mean(np.array(differences) >= differences[0] - 1e-12)


@pytest.mark.parametrize("metric", OTHERS)
@pytest.mark.parametrize("seed", range(4))
def test_few_units_are_exchanged_in_all_ways(metric, seed):
    y, (a, b) = heads(24, seed=seed, alike=0.0)
    for units in (np.arange(24) // 3, np.arange(24) % 5):
        (p,) = permutation_tests(metric, y, [a, b], [(0, 1)], units=units)
        assert p == pytest.approx(by_hand(metric, y, a, b, units), abs=1e-12)
    y, (a, b) = heads(9, seed=seed, alike=0.0)
    (p,) = permutation_tests(metric, y, [a, b], [(0, 1)])
    assert p == pytest.approx(by_hand(metric, y, a, b, np.arange(9)), abs=1e-12)


@pytest.mark.parametrize("metric", OTHERS)
def test_many_units_are_exchanged_at_random_and_come_to_the_same(metric):
    y, (a, b) = heads(60, seed=5, alike=0.0)
    units = np.arange(60) % 14
    exact = by_hand(metric, y, a, b, units)
    (p,) = permutation_tests(metric, y, [a, b], [(0, 1)], units=units)
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / N_EXCHANGES) + 1 / N_EXCHANGES)
    assert permutation_tests(metric, y, [a, b], [(1, 0)], units=units) == [p]


def test_with_classes_of_one_size_balanced_accuracy_is_tested_as_accuracy():
    y, found = heads(300, seed=1, alike=0.5)
    y = np.arange(300) % 3
    (p,) = permutation_tests("balanced_accuracy", y, found, [(0, 1)])
    exact = paired_test(found[0].predicted == y, found[1].predicted == y)
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / N_EXCHANGES) + 1 / N_EXCHANGES)


@pytest.mark.parametrize("metric", OTHERS)
def test_heads_that_say_the_same_are_not_different_and_no_p_value_is_zero(metric):
    y, (a, _) = heads(200)
    assert permutation_tests(metric, y, [a, a], [(0, 1)]) == [1.0]
    perfect = Answers(y, np.zeros(200))
    hopeless = Answers((y + 1) % 3, np.full(200, 9.0))
    (p,) = permutation_tests(metric, y, [perfect, hopeless], [(0, 1)])
    assert p == pytest.approx(1 / (1 + N_EXCHANGES))


@pytest.mark.parametrize("metric", OTHERS)
def test_equally_good_heads_are_called_different_as_often_as_the_level_says(metric):
    found = []
    for seed in range(300):
        y, (a, b) = heads(40, seed=seed, alike=0.3)
        units = np.arange(40) // 4
        found += permutation_tests(metric, y, [a, b], [(0, 1)], units=units)
    assert 0.02 < np.mean(np.array(found) <= 0.05) < 0.085
    assert 0.15 < np.mean(np.array(found) <= 0.2) < 0.26


@pytest.mark.parametrize("metric", OTHERS)
def test_pairs_together_are_pairs_alone(metric):
    y, found = heads(120, 4, seed=3)
    pairs = list(combinations(range(4), 2))
    together = permutation_tests(metric, y, found, pairs)
    assert together == [permutation_tests(metric, y, found, [pair])[0] for pair in pairs]


def test_values_are_those_of_scikit_learn():
    rng = np.random.default_rng(2)
    y, proba = rng.integers(0, 4, 80), rng.dirichlet(np.ones(4), 80)
    answers = Answers(proba.argmax(axis=1), log_losses(y, proba))
    assert answers.value("balanced_accuracy", y) == pytest.approx(balanced_accuracy_score(y, answers.predicted))
    assert answers.value("macro_f1", y) == pytest.approx(f1_score(y, answers.predicted, average="macro"))
    assert answers.value("log_loss", y) == pytest.approx(reference_log_loss(y, proba, labels=range(4)), rel=1e-9)
    assert answers.value("accuracy", y) == np.mean(answers.predicted == y)


def named(answers):
    return dict(zip("abcd", answers, strict=False))


def test_the_best_is_the_one_with_the_lowest_log_loss_or_the_highest_share():
    y, found = heads(150, 4, seed=4, alike=0.2)
    for metric in METRICS:
        values = {name: each.value(metric, y) for name, each in named(found).items()}
        best = (min if metric == "log_loss" else max)(values, key=values.get)
        ranking = rank_heads(y, named(found), metric=metric)
        assert ranking.best == best
        assert ranking.against_best[best] == (1.0, True)


def test_by_accuracy_heads_are_ranked_as_by_mcnemar():
    y, found = heads(150, 3, seed=6)
    correct = {name: each.predicted == y for name, each in named(found).items()}
    assert rank_heads(y, named(found)).against_best == compare_with_best(correct)


@pytest.mark.parametrize("metric", OTHERS)
def test_who_is_better_is_by_the_metric_and_not_by_right_answers(metric):
    rare = np.repeat([0, 1], [900, 100])
    lazy = Answers(np.zeros(1000, dtype=int), np.where(rare == 0, 0.01, 9.0))
    fair = Answers(np.where(np.arange(1000) % 5 == 0, 1 - rare, rare), np.full(1000, 0.5))
    ranking = rank_heads(rare, {"lazy": lazy, "fair": fair}, metric=metric)
    assert lazy.value("accuracy", rare) > fair.value("accuracy", rare)
    assert ranking.best == "fair"
    assert ranking.rank == {"lazy": 2, "fair": 1}
    assert ranking.pairs[0].better == "fair"
    assert not ranking.against_best["lazy"][1]


def test_without_a_head_nothing_is_ranked():
    with pytest.raises(ValueError, match="no head to rank"):
        rank_heads(np.zeros(3, dtype=int), {})


def test_equals_by_a_metric_are_decided_by_log_loss_then_accuracy():
    even = {"accuracy": 0.9, "balanced_accuracy": 0.8, "macro_f1": 0.8, "log_loss": 0.3}
    surer, righter = even | {"log_loss": 0.2}, even | {"accuracy": 0.95}
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        assert preference(surer, metric) < preference(even, metric)
        assert preference(righter, metric) < preference(even, metric)
    assert preference(surer, "macro_f1") < preference(righter, "macro_f1")
    for worst in ({}, {"log_loss": None}, {"log_loss": float("nan")}):
        assert preference(even, "log_loss") < preference(worst, "log_loss")


def test_values_are_shown_with_their_unit():
    assert CRITERIA["macro_f1"].shown(0.9312) == "93.12 %"
    assert CRITERIA["log_loss"].shown(0.2134) == "0.213"


def test_a_metric_that_is_not_there_is_no_other_one():
    y_true = np.array([0, 1, 1])
    answers = [Answers(y_true, np.zeros(3)), Answers(1 - y_true, np.ones(3))]
    with pytest.raises(KeyError, match="top5"):
        answers[0].value("top5", y_true)
    with pytest.raises(KeyError, match="top5"):
        permutation_tests("top5", y_true, answers, [(0, 1)])


def test_every_metric_to_choose_by_has_a_value_and_a_score():
    rng = np.random.default_rng(0)
    y_true, proba = rng.integers(0, 3, 40), rng.dirichlet(np.ones(3), 40)
    predicted = proba.argmax(axis=1)
    found, answers = score(y_true, proba, predicted), Answers(predicted, log_losses(y_true, proba))
    assert [answers.value(metric, y_true) for metric in METRICS] == pytest.approx([found[metric] for metric in METRICS])
