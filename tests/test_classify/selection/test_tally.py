"""What a sweep keeps of its trials, and that it does not grow with settings x rows x classes."""

import tracemalloc
import weakref

import numpy as np
import pytest

import featurecache.classify.heads.mlp
import featurecache.classify.heads.shared.moments
import featurecache.classify.heads.shared.trials
from featurecache.classify.evaluation.calibration import TemperatureFit, find_temperature
from featurecache.classify.evaluation.metric_sums import MetricSums
from featurecache.classify.heads.shared.trials import Trial
from featurecache.classify.heads.table import build_head, head_grid
from featurecache.classify.selection.holdouts import fold_rounds
from featurecache.classify.selection.tally import Tally, agree


def trial(proba, truth, classes=(0, 1), **more):
    proba = np.asarray(proba, dtype=np.float64)
    sums = MetricSums.of([(slice(None), proba)], np.asarray(truth), proba.argmax(axis=1), len(classes))
    return Trial(np.array(classes), sums, **more)


def test_rounds_are_joined_in_whatever_order_they_come():
    rounds = fold_rounds(np.array([0, 0, 1]))
    tally = Tally([{"k": 1}, {"k": 2}], rounds, np.array([0, 1]), np.array([0, 1, 1]))
    sure, half = [[0.9, 0.1], [0.1, 0.9]], [[0.6, 0.4], [0.4, 0.6]]
    for setting, proba in ((1, sure), (0, half)):
        tally.add(setting, 1, trial(proba[1:], [1], decided={"temperature": 3.0}, note=f"{setting} late"), 1.0)
        tally.add(setting, 0, trial(proba, [0, 1], decided={"temperature": 1.0}, note=f"{setting} early"), 2.0)
    chosen = tally.chosen()
    assert chosen.params == {"k": 2, "temperature": 2.0}
    assert chosen.notes == ("1 early", "1 late")
    assert chosen.seconds == 3.0
    assert chosen.metrics["accuracy"] == 1.0
    assert chosen.metrics["log_loss"] == pytest.approx(-np.log(0.9))
    assert [outcome.params["k"] for outcome in tally.through()] == [1, 2]


def test_of_equals_the_first_of_the_grid_is_the_best():
    tally = Tally([{"k": 1}, {"k": 2}], fold_rounds(np.zeros(2)), np.array([0, 1]), np.arange(2))
    for setting in (1, 0):
        tally.add(setting, 0, trial(np.eye(2), [0, 1]), 0.0)
    assert tally.chosen().params == {"k": 1}


def test_a_round_that_lacks_a_class_counts_its_rows_as_wrong():
    tally = Tally([{}], fold_rounds(np.arange(2)), np.array([3, 5, 7]), np.array([1, 2]))
    tally.add(0, 0, trial([[0.2, 0.8]], [0], classes=(5, 7)), 0.0)
    tally.add(0, 1, trial([[0.9, 0.1]], [-1], classes=(3, 5)), 0.0)
    assert tally.chosen().metrics["accuracy"] == 0.0
    assert tally.chosen().metrics["macro_f1"] == 0.0


def test_rounds_agree_on_a_temperature_by_how_sure_they_are():
    tally = Tally([{}], fold_rounds(np.arange(2)), np.array([0, 1]), np.arange(2))
    for number, fit in enumerate((TemperatureFit(1.0, 3.0), TemperatureFit(16.0, 1.0))):
        tally.add(0, number, trial([[0.9, 0.1]], [number - number], tempering=fit), 0.0)
    assert tally.chosen().tempering == pytest.approx(2.0)
    assert agree([{"epochs": 3}, {"epochs": 4}]) == {"epochs": 4}


GRIDS = {name: head_grid(name) for name in ("knn", "naive_bayes", "centroid", "ridge", "lda")}
GRIDS["logistic"] = head_grid("logistic")[10:22]
GRIDS["linear_svm"] = head_grid("linear_svm")[8:]
GRIDS["mlp"] = [{"hidden": 4, "epochs": 1, "learning_rate": rate} for rate in np.geomspace(1e-4, 1e-2, 12)]
GRIDS["rbf_svm"] = [{"C": C} for C in np.geomspace(0.1, 10.0, 10)]


def clouds(n, n_classes):
    rng, y = np.random.default_rng(0), np.arange(n) % n_classes
    return (rng.normal(size=(n, 6)) + 3.0 * rng.normal(size=(n_classes, 6))[y]).astype(np.float32), y


@pytest.mark.parametrize("name", GRIDS)
def test_the_scores_of_a_setting_are_gone_once_they_are_judged(name, monkeypatch):
    for module in (featurecache.classify.heads.shared.moments, featurecache.classify.heads.mlp):
        monkeypatch.setattr(module, "TOGETHER_BYTES", 1)
    judged, alive = [], []

    def noting(scores, y, **guess):
        judged.append(weakref.ref(scores))
        return find_temperature(scores, y, **guess)

    monkeypatch.setattr(featurecache.classify.heads.shared.trials, "find_temperature", noting)
    (X, y), grid = clouds(120, 4), GRIDS[name]
    rounds, heads = fold_rounds(np.arange(120) // 4 % 3), [build_head(name, seed=0, **setting) for setting in grid]
    tally = Tally(grid, rounds, np.unique(y), y)
    for setting, number, each in type(heads[0]).try_grid(heads, X, y, rounds):
        tally.add(setting, number, each, 0.0)
        alive.append(len({id(scores()) for scores in judged if scores() is not None}))
    assert len(tally.outcomes) == len(grid) < len(judged)
    assert max(alive) <= 2


@pytest.mark.parametrize("name", ["knn", "naive_bayes", "centroid", "ridge"])
def test_what_a_sweep_keeps_does_not_grow_with_settings_times_rows_times_classes(name, monkeypatch):
    """Of all settings, float32 probabilities of the held-out rows alone would take `whole`."""
    monkeypatch.setattr(featurecache.classify.heads.shared.moments, "TOGETHER_BYTES", 2**16)
    n, n_classes = 800, 40
    X, y = clouds(n, n_classes)
    rounds, classes = fold_rounds(np.arange(n) // n_classes % 4), np.unique(y)

    def most(grid):
        heads = [build_head(name, seed=0, **setting) for setting in grid]
        tally = Tally(grid, rounds, classes, y)
        tracemalloc.start()
        for setting, number, each in type(heads[0]).try_grid(heads, X, y, rounds):
            tally.add(setting, number, each, 0.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most(GRIDS[name][:2])  # imports what it needs
    few, many = GRIDS[name][: len(GRIDS[name]) // 6], GRIDS[name]
    whole = (len(many) - len(few)) * n * n_classes * 4
    assert most(many) - most(few) < 0.35 * whole


def test_an_exact_kernel_keeps_the_support_of_no_setting_that_is_through():
    X, y = clouds(90, 3)
    heads = [build_head("rbf_svm", C=C) for C in (0.1, 1.0, 10.0)]
    for setting, _, _ in type(heads[0]).try_grid(heads, X, y, fold_rounds(np.arange(90) // 3 % 2)):
        assert not hasattr(heads[setting], "support_vectors_")
