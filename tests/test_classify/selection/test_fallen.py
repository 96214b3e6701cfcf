"""Strengths far above the best are not tried, and say so; what is chosen is what the whole grid would choose."""

from types import SimpleNamespace

import numpy as np
import pytest

from featurecache.classify.heads.linear_svm import LinearSVMHead
from featurecache.classify.heads.logistic import LogisticHead
from featurecache.classify.heads.ridge import RidgeHead
from featurecache.classify.heads.table import head_grid
from featurecache.classify.selection import fallen
from featurecache.classify.selection.fallen import climbed_parameter, has_fallen, untried_note
from featurecache.classify.selection.holdouts import fold_rounds, val_round
from featurecache.classify.selection.sweep import sweep

VALUES = [1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0]


def outcomes(*accuracies):
    return {i: SimpleNamespace(metrics={"accuracy": each}) for i, each in enumerate(accuracies) if each is not None}


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([], False),
        ([0.9], False),
        ([0.9, 0.8], False),
        ([0.9, 0.8, 0.8], False),
        ([0.9, 0.8, 0.8, 0.8], True),
        ([0.8, 0.9, 0.8, 0.8], False),
        ([0.8, 0.9, 0.8, 0.8, 0.8], True),
        ([0.9, 0.8, 0.8, 0.9], False),  # as good as the best: counted from there
        ([0.9, 0.8, 0.9, 0.8, 0.8], False),
        ([0.5, 0.6, 0.7, 0.8], False),
        ([0.9, None, 0.8, 0.8], False),  # what lies between is on its way
        ([0.9, 0.8, 0.8, 0.8, None, 0.8], False),
        ([0.9, 0.8, 0.8, 0.8, 0.8, 0.8], False),  # nothing is left
    ],
)
def test_val_has_fallen_when_two_decades_above_the_best_are_worse(accuracies, expected):
    assert has_fallen(VALUES, outcomes(*accuracies), "accuracy") is expected
    backwards = {len(VALUES) - 1 - setting: each for setting, each in outcomes(*accuracies).items()}
    assert has_fallen(VALUES[::-1], backwards, "accuracy") is expected


def test_a_loss_falls_upwards():
    losses = [SimpleNamespace(metrics={"log_loss": each}) for each in (0.5, 0.6, 0.7, 0.8)]
    assert has_fallen(VALUES, dict(enumerate(losses)), "log_loss")
    assert not has_fallen(VALUES, dict(enumerate(losses[::-1])), "log_loss")


def test_values_far_apart_are_tried_until_two_decades_of_them_are_worse():
    assert not has_fallen([1e-3, 1.0, 1e3], outcomes(0.9, 0.8), "accuracy")


def test_the_note_names_what_was_not_tried():
    assert untried_note("C", VALUES, outcomes(0.9, 0.8, 0.8, 0.8), "accuracy") == (
        "2 of 6 values of C, from 10 up, were not tried: over the two decades before, the accuracy on val was worse "
        "than at its best."
    )


def test_only_a_single_climb_in_a_single_round_may_end():
    grid = [{"C": 1.0}, {"C": 2.0}]
    assert climbed_parameter(LogisticHead, grid, 1) == climbed_parameter(LinearSVMHead, grid, 1) == "C"
    assert climbed_parameter(LogisticHead, grid, 2) is None
    assert climbed_parameter(LogisticHead, [{**each, "tol": each["C"]} for each in grid], 1) is None
    assert climbed_parameter(LogisticHead, [{**each, "class_weight": "balanced"} for each in grid], 1) == "C"
    assert climbed_parameter(LogisticHead, [{"tol": 1e-3}], 1) is None
    assert climbed_parameter(RidgeHead, [{"alpha": 1.0}], 1) is None


def noisy(n=240):
    """Rows of 60 columns, of which three tell the classes apart, badly: they are soon learned by heart."""
    rng, y = np.random.default_rng(0), np.arange(n) % 3
    X = rng.normal(size=(n, 60))
    X[:, :3] += 1.2 * np.eye(3)[y]
    return X.astype(np.float32), y


@pytest.mark.parametrize("name", ["logistic", "linear_svm"])
@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_what_is_chosen_is_what_the_whole_grid_would_choose(name, metric, monkeypatch):
    X, y = noisy()
    rounds = val_round(140, len(y))
    short = sweep(name, X, y, rounds=rounds, metric=metric)
    monkeypatch.setattr(fallen, "REACH", np.inf)
    whole = sweep(name, X, y, rounds=rounds, metric=metric)
    assert (short.params, short.val, short.grid_size) == (whole.params, whole.val, whole.grid_size)
    assert len(short.grid) < len(whole.grid) == len(head_grid(name))
    (note,) = [note for note in short.notes if "were not tried" in note]
    assert note.startswith(f"{len(whole.grid) - len(short.grid)} of {len(whole.grid)} values of C, from ")
    assert not [each for each in short.notes if "of its grid" in each]
    assert not [each for each in whole.notes if "were not tried" in each]
    assert [row["params"] for row in short.grid] == [row["params"] for row in whole.grid[: len(short.grid)]]


def test_folds_try_the_whole_grid():
    X, y = noisy(90)
    assert len(sweep("linear_svm", X, y, rounds=fold_rounds(np.arange(90) // 3 % 2)).grid) == 19


def test_a_strength_on_the_way_up_is_not_an_end_of_the_grid():
    X, y = noisy()
    grid = [{"C": C} for C in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)]
    found = sweep("logistic", X, y, rounds=val_round(140, len(y)), grid=grid)
    last = found.grid[-1]["params"]["C"]
    assert last < 100.0
    assert found.params["C"] <= last / 100.0
