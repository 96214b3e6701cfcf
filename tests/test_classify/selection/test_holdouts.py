import numpy as np
import pytest

from featurecache.base.errors import BadSplit
from featurecache.classify.selection.holdouts import check_rounds, fold_rounds, val_round


def test_val_is_held_out_behind_train():
    assert [held_out.tolist() for held_out in val_round(2, 5)] == [[False, False, True, True, True]]


def test_every_fold_is_held_out_once():
    rounds = fold_rounds(np.array([2, 0, 2, 1]))
    assert np.stack(rounds).sum(axis=0).tolist() == [1, 1, 1, 1]
    assert rounds[2].tolist() == [True, False, True, False]


@pytest.mark.parametrize(("n_train", "empty", "full"), [(0, "Train", "val"), (5, "Val", "train")])
def test_an_empty_side_is_named_and_refused(n_train, empty, full):
    with pytest.raises(BadSplit, match=f"{empty} is empty, {full} has 5 images.*--folds"):
        val_round(n_train, 5)


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([], "No round was given"),
        ([np.ones(4, dtype=bool)], "A round of 4 rows was given for 5 rows"),
        ([np.ones(5, dtype=bool)], "holds out no row or all of them"),
        ([np.zeros(5, dtype=bool)], "holds out no row or all of them"),
        ([np.arange(5) % 2 == 0], "a round has one class left to train on"),
    ],
)
def test_rounds_that_leave_nothing_to_do_are_refused(rounds, said):
    with pytest.raises(BadSplit, match=said):
        check_rounds(rounds, np.array([0, 1, 0, 1, 2]))
