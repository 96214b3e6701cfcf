import numpy as np
import pytest

from featurecache.classify.evaluation.units import count_units, unit_hashes, units_of
from featurecache.classify.selection.splits import assign_folds


def digests_of(*images):
    return np.array([np.full(32, image) for image in images], dtype=np.uint8)


def same(units):
    """Which samples share a unit, as sets of rows."""
    return {frozenset(np.flatnonzero(units == unit).tolist()) for unit in np.unique(units)}


def test_copies_and_groups_make_units_and_a_copy_in_two_groups_joins_them():
    digests = digests_of(1, 1, 2, 3, 4, 4, 5)
    assert same(units_of(digests)) == {frozenset(s) for s in ([0, 1], [2], [3], [4, 5], [6])}
    groups = [None, "a", "a", "b", "b", "c", None]
    assert same(units_of(digests, groups)) == {frozenset(s) for s in ([0, 1, 2], [3, 4, 5], [6])}


def test_units_are_numbered_without_a_gap_and_none_is_made_of_nothing():
    assert sorted(set(units_of(digests_of(9, 8, 9, 7), ["x", None, None, "x"]).tolist())) == [0, 1]
    assert len(units_of(np.zeros((0, 32), dtype=np.uint8))) == 0


def test_units_are_numbered_by_their_names_whatever_the_order_of_the_samples():
    digests, groups = digests_of(200, 3, 200, 7), ["b", None, None, "a"]
    units = units_of(digests, groups)
    assert units.tolist() == [2, 0, 2, 1]  # "0303...", "a", "b", which is "c8c8..." too: the smallest counts
    order = [3, 1, 0, 2]
    assert units_of(digests[order], [groups[i] for i in order]).tolist() == units[order].tolist()


def test_images_without_groups_have_the_units_that_they_have_among_images_with_groups():
    digests = np.random.default_rng(0).integers(0, 256, (40, 32), dtype=np.uint8)[np.r_[:40, 3, 3, 17]]
    digests[::5, -3:] = 0
    among = units_of(np.concatenate([digests, np.full((1, 32), 255, np.uint8)]), [*[None] * 43, "zz"])
    assert units_of(digests).tolist() == units_of(digests, [None] * 43).tolist() == among[:-1].tolist()


def test_a_group_is_no_image_of_the_same_name():
    assert len(set(units_of(digests_of(1, 2), ["image:" + "\x01" * 32, None]).tolist())) == 2


def test_the_hash_of_a_group_is_the_same_whatever_its_images():
    groups = ["a", "a", "b"]
    one, other = digests_of(1, 2, 3), digests_of(4, 5, 6)
    hashes = [unit_hashes(units_of(d, groups), d, groups, seed=5) for d in (one, other)]
    assert sorted(hashes[0]) == sorted(hashes[1])
    assert sorted(hashes[0]) != sorted(unit_hashes(units_of(one, groups), one, groups, seed=6))
    assert all(0 <= u < 1 for u in hashes[0])


def test_units_are_counted_by_class():
    units, y = np.array([0, 0, 1, 2, 2]), np.array([0, 0, 0, 1, 0])
    assert count_units(units, y, 3).tolist() == [3, 1, 0]


def test_a_group_for_each_image_is_asked_for():
    with pytest.raises(ValueError, match="zip"):
        units_of(digests_of(1, 2), ["a"])
    with pytest.raises(ValueError, match="zip"):
        units_of(digests_of(1, 2), [None])


def test_folds_of_single_images_are_those_of_their_digests_in_hexadecimal():
    digests = np.random.default_rng(0).integers(0, 256, (60, 32), dtype=np.uint8)
    y = np.arange(60) % 3
    by_name = assign_folds([bytes(row).hex() for row in digests], y, 5, seed=2)
    assert (assign_folds(units_of(digests), y, 5, seed=2) == by_name).all()
    rows = np.arange(60) % 4 > 0
    by_name = assign_folds([bytes(row).hex() for row in digests[rows]], y[rows], 5, seed=2)
    assert (assign_folds(units_of(digests)[rows], y[rows], 5, seed=2) == by_name).all()
