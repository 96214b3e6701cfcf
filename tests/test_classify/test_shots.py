from itertools import pairwise

import numpy as np
import pytest

from classify.errors import BadLabels
from classify.shots import draw_shots, try_shots

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
    assert found.shape == (3, 3)
    assert found.mean(axis=0)[0] < found.mean(axis=0)[1] < found.mean(axis=0)[2]
    assert steps[-1] == (9, 9, "32 labels per class")
    assert np.array_equal(found, try_shots("centroid", X[:200], y[:200], X[200:], y[200:], drawn))
