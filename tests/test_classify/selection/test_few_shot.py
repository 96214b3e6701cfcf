from itertools import pairwise

import numpy as np
import pytest

from featurecache.base.errors import BadLabels
from featurecache.classify.selection import few_shot as shots
from featurecache.classify.selection.few_shot import draw_shots, try_shots
from featurecache.classify.selection.sweep import sweep

Y = np.repeat([0, 1, 2], [50, 20, 5])


def test_each_sample_has_so_many_of_each_class_and_contains_the_one_before():
    drawn = draw_shots(Y, [1, 2, 4, 8], 3, seed=1)
    assert [len(samples) for samples in drawn] == [4, 4, 4]
    for samples in drawn:
        assert [np.bincount(Y[s.rows]).tolist() for s in samples] == [[1] * 3, [2] * 3, [4] * 3, [8, 8, 5]]
        assert all(set(small.rows) <= set(large.rows) for small, large in pairwise(samples))
        assert all(len(set(s.rows)) == len(s.rows) for s in samples)


def test_one_shot_is_chosen_on_two_and_more_on_their_own_rows():
    one, two, four = draw_shots(Y, [1, 2, 4], 1)[0]
    assert set(one.chosen_on) == set(two.rows)
    assert np.array_equal(four.chosen_on, four.rows)


def test_draws_are_seeded_and_differ_between_repeats():
    first, second = draw_shots(Y, [4], 2, seed=7)
    again = draw_shots(Y, [4], 2, seed=7)[0]
    assert np.array_equal(first[0].rows, again[0].rows)
    assert set(first[0].rows) != set(second[0].rows)
    assert set(first[0].rows) != set(draw_shots(Y, [4], 1, seed=8)[0][0].rows)


def test_more_shots_than_any_class_has_are_left_out():
    assert [s.shots for s in draw_shots(Y, [32, 2, 64, 2], 1)[0]] == [2, 32]


def test_a_single_class_with_two_images_is_too_few():
    with pytest.raises(BadLabels, match="Fewer than two classes have two training images"):
        draw_shots(np.array([0, 0, 1]), [1], 1)


def test_more_labels_do_better_and_the_same_seed_does_the_same():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    X = (rng.normal(size=(400, 20)) + 1.2 * np.eye(20)[y]).astype(np.float32)
    drawn = draw_shots(y[:200], [1, 4, 32], 3)
    steps = []
    found = try_shots("centroid", X[:200], y[:200], X[200:], y[200:], drawn, progress=lambda *step: steps.append(step))
    assert found.shape == (3, 3, 200)
    one, four, many = found.mean(axis=(0, 2))
    assert one < four < many
    assert steps[-1] == (9, 9, "32 labels per class")
    assert np.array_equal(found, try_shots("centroid", X[:200], y[:200], X[200:], y[200:], drawn))


def test_labels_come_from_as_many_units_as_there_are():
    y, units = np.repeat([0, 1], 40), np.arange(80) // 8
    for samples in draw_shots(y, [2, 5, 10], 4, units=units):
        two, five, ten = ([set(units[s.rows[y[s.rows] == c]]) for c in (0, 1)] for s in samples)
        assert [len(own) for own in two] == [2, 2]
        assert five == ten == [{0, 1, 2, 3, 4}, {5, 6, 7, 8, 9}]
        assert max(np.unique(units[samples[2].rows], return_counts=True)[1]) == 2


def test_where_every_image_is_a_unit_of_its_own_the_draws_are_those_without_units():
    own = np.random.default_rng(0).permutation(len(Y))
    for one, other in zip(draw_shots(Y, [2, 8], 3, units=own), draw_shots(Y, [2, 8], 3), strict=True):
        assert all(np.array_equal(a.rows, b.rows) for a, b in zip(one, other, strict=True))


def test_classes_of_one_unit_are_too_few():
    with pytest.raises(BadLabels, match="counting copies and members of a group once"):
        draw_shots(np.array([0, 0, 1, 1]), [1], 1, units=np.array([0, 0, 1, 1]))


def seen_by_sweep(monkeypatch):
    seen = []

    def spy(name, X, y, *, rounds, grid, metric, seed):
        seen.append((X, y, rounds))
        return sweep(name, X, y, rounds=rounds, grid=grid, metric=metric, seed=seed)

    monkeypatch.setattr(shots, "sweep", spy)
    return seen


def test_every_repeat_chooses_its_setting_on_its_own_rows_with_units_held_out_whole(monkeypatch):
    rng = np.random.default_rng(0)
    y, units = np.arange(120) % 3, np.arange(120) // 6  # each unit holds all classes
    X = rng.normal(size=(120, 5)).astype(np.float32)
    drawn = draw_shots(y, [1, 4], 3, units=units)
    seen = seen_by_sweep(monkeypatch)
    try_shots("centroid", X, y, X[:9], y[:9], drawn, units=units)
    samples = [samples[k] for k in (0, 1) for samples in drawn]
    assert len(seen) == len(samples) == 6
    for (own, _, rounds), sample in zip(seen, samples, strict=True):
        assert np.array_equal(own, X[sample.chosen_on])
        for held_out in rounds:
            assert not set(units[sample.chosen_on[held_out]]) & set(units[sample.chosen_on[~held_out]])


def test_where_folds_would_leave_one_class_each_unit_is_held_out():
    # Dealt in this order, the third unit joins the first or the second, whose class is then in one fold alone.
    units, y = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 0])
    n_rounds = set()
    for seed in range(10):
        rounds = shots._rounds(units, y, 2, seed)
        n_rounds.add(len(rounds))
        assert all(len(np.unique(y[~held_out])) == 2 for held_out in rounds)
    assert n_rounds == {2, 3}
