from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from featurecache.base.errors import BadLabels, BadSplit
from featurecache.classify.evaluation.units import unit_hashes, units_of
from featurecache.classify.selection.splits import assign_folds, assign_splits


def many(n, start=0):
    return np.random.default_rng(start).integers(0, 256, (n, 32), dtype=np.uint8)


def test_the_shares_are_met():
    splits = assign_splits(many(5000), np.arange(5000) % 2)
    assert np.mean(splits == "test") == pytest.approx(0.2, abs=0.02)
    assert np.mean(splits == "val") == pytest.approx(0.16, abs=0.02)


def test_adding_images_moves_nobody():
    digests, y = many(1000), np.arange(1000) % 3
    assert (assign_splits(digests[:600], y[:600]) == assign_splits(digests, y)[:600]).all()


def test_the_order_of_the_samples_does_not_matter():
    digests, y, order = many(300), np.arange(300) % 3, np.random.default_rng(1).permutation(300)
    assert (assign_splits(digests[order], y[order]) == assign_splits(digests, y)[order]).all()


def test_another_seed_is_another_split():
    digests, y = many(300), np.arange(300) % 3
    assert (assign_splits(digests, y, seed=1) != assign_splits(digests, y, seed=2)).any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 6) | st.none()), min_size=30, max_size=80))
def test_copies_and_groups_never_stand_on_two_sides(samples):
    digests = many(26)[[image for image, _ in samples]]
    groups = [None if group is None else f"patient {group}" for _, group in samples]
    extra = many(40, start=9)
    digests, groups = np.concatenate([digests, extra]), groups + [None] * 40
    splits = assign_splits(digests, np.arange(len(digests)) % 2, groups=groups)
    for keys in ([row.tobytes() for row in digests], groups):
        sides = {}
        for key, split in zip(keys, splits, strict=True):
            assert key is None or sides.setdefault(key, split) == split


def test_a_group_goes_where_its_name_sends_it_whatever_its_images():
    y = np.arange(200) % 2
    groups = [f"g{i // 4}" for i in range(200)]
    assert (assign_splits(many(200), y, groups=groups) == assign_splits(many(200, start=5), y, groups=groups)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 8), st.integers(0, 10_000))
def test_a_class_of_three_images_or_more_is_on_every_side(n, seed):
    digests = np.concatenate([many(200), many(n, start=seed + 1)])
    splits = assign_splits(digests, np.array([0] * 200 + [1] * n))
    assert set(splits[200:]) == {"train", "val", "test"}


def test_a_class_of_two_images_is_trained_and_tested():
    splits = assign_splits(np.concatenate([many(200), many(2, start=3)]), np.array([0] * 200 + [1] * 2))
    assert set(splits[200:]) == {"train", "test"}


def test_given_splits_are_honoured():
    given = ["train", "val", "test"] * 20
    splits = assign_splits(many(60), np.arange(60) // 3 % 2, given=given)
    assert splits.tolist() == given


@pytest.mark.parametrize(("kept", "carved", "share"), [("test", "val", 0.2), ("val", "test", 0.2 / 0.84)])
def test_the_split_that_is_not_given_is_carved_out_of_train(kept, carved, share):
    given = np.array(["train"] * 2000 + [kept] * 300)
    splits = assign_splits(many(2300), np.arange(2300) % 2, given=given.tolist())
    assert (splits[2000:] == kept).all()
    assert set(splits[:2000]) == {"train", carved}
    assert np.mean(splits[:2000] == carved) == pytest.approx(share, abs=0.03)


def test_only_train_given_is_no_split_given():
    digests, y = many(100), np.arange(100) % 2
    assert (assign_splits(digests, y, given=["train"] * 100) == assign_splits(digests, y)).all()
    assert (assign_splits(digests, y, given=[None] * 100) == assign_splits(digests, y)).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["train", None, "test", None],
            "2 of 4 samples have no split: give every sample train, val or test, or none.",
        ),
        (["train", "dev", "test", "val"], "The split 'dev' is unknown: the splits are train, val and test."),
        (
            ["val", "test", "test", "val"],
            "The samples are all in test and val: put some in train, or give no splits.",
        ),
    ],
)
def test_splits_that_cannot_be_used_are_refused(given, said):
    with pytest.raises(BadSplit) as refused:
        assign_splits(many(4), np.array([0, 1, 0, 1]), given=given)
    assert str(refused.value) == said


def test_a_train_too_small_to_spare_an_image_for_test_is_refused():
    with pytest.raises(BadSplit) as refused:
        assign_splits(many(4), np.array([0, 1, 0, 1]), given=["train", "train", "val", "val"])
    assert str(refused.value) == "No image could be put into test: add images, or a test folder."


def test_a_train_too_small_to_spare_an_image_for_val_still_serves_folds():
    splits = assign_splits(many(4), np.array([0, 1, 0, 1]), given=["train", "train", "test", "test"])
    assert splits.tolist() == ["train", "train", "test", "test"]


def test_one_class_is_refused_by_name():
    with pytest.raises(BadLabels) as refused:
        assign_splits(many(4), np.zeros(4, dtype=int), classes=["cat"])
    assert str(refused.value) == (
        "A head tells classes apart, but only the class 'cat' was found: give images of at least two classes."
    )


def test_no_sample_is_refused():
    with pytest.raises(BadLabels, match="no sample was found"):
        assign_splits(many(0), np.zeros(0, dtype=int))


def test_every_class_with_a_single_image_is_refused_by_name_at_once():
    with pytest.raises(BadLabels) as refused:
        assign_splits(many(20), np.array([0] * 18 + [1, 2]), classes=["cat", "dog", "eel"])
    assert str(refused.value) == (
        "These 2 classes have one image only, counting copies and members of a group once, which cannot be in both "
        "train and test: 'dog' (1 image), 'eel' (1 image). Add images of them, or leave the classes out with "
        "--min-per-class 2."
    )


def test_a_class_that_is_one_image_copied_is_refused():
    digests = np.concatenate([many(20), np.repeat(many(1, start=4), 3, axis=0)])
    with pytest.raises(BadLabels) as refused:
        assign_splits(digests, np.array([0] * 20 + [1] * 3))
    assert str(refused.value) == (
        "This class has one image only, counting copies and members of a group once, which cannot be in both train "
        "and test: 1 (3 images). Add images of it, or leave the class out with --min-per-class 2."
    )


def test_of_many_classes_that_cannot_be_divided_twenty_are_named_and_the_rest_counted():
    with pytest.raises(BadLabels, match=r"These 30 classes have .*, 20 \(1 image\), 10 more\. Add images of them"):
        assign_splits(many(50), np.array([0] * 20 + list(range(1, 31))))


def test_classes_that_train_lacks_are_refused_by_name():
    given = ["train"] * 4 + ["test"] * 2 + ["val"]
    with pytest.raises(BadLabels) as refused:
        assign_splits(many(7), np.array([0, 1, 0, 1, 0, 2, 1]), given=given, classes=["cat", "dog", "eel"])
    assert str(refused.value) == (
        "The class 'eel' is in test but not in train: add training images of it or leave the class out."
    )
    with pytest.raises(BadLabels) as refused:
        assign_splits(many(7), np.array([0, 1, 0, 1, 3, 2, 1]), given=given, classes=["cat", "dog", "eel", "fox"])
    assert str(refused.value) == (
        "The classes 'eel', 'fox' are in test but not in train: add training images of them or leave them out."
    )


def patients(members, *, prefix):
    """Digests, y and groups of one image for each patient and class: members[p] are the classes of patient p."""
    y = np.array([c for own in members for c in own])
    groups = [f"{prefix}-{p}" for p, own in enumerate(members) for _ in own]
    return many(len(y), start=len(prefix)), y, groups


def on_sides(y, splits):
    return {int(c): set(splits[y == c].tolist()) for c in np.unique(y)}


def test_three_patients_with_two_classes_each_in_two_of_them_are_divided_under_any_name():
    for name in range(300):
        digests, y, groups = patients([[0], [0, 1], [1]], prefix=f"patient {name}")
        splits = assign_splits(digests, y, groups=groups)
        assert all(sides >= {"train", "test"} for sides in on_sides(y, splits).values())


FOURTEEN = [[0, 1], [0, 2], [1], [2, 3], [3, 4], [0, 4], [1, 3], [2], [4], [0, 1, 2], [3], [2, 4], [1, 4], [0, 3]]


def test_five_classes_spread_over_fourteen_patients_are_on_every_side_under_any_name():
    for name in range(321):
        digests, y, groups = patients(FOURTEEN, prefix=f"hospital {name}")
        splits = assign_splits(digests, y, groups=groups)
        assert all(sides == {"train", "val", "test"} for sides in on_sides(y, splits).values())


def an_assignment_exists(members):
    """Whether any of all assignments has each class on as many sides as it has patients for."""
    n_of = {c: sum(c in own for own in members) for own in members for c in own}
    wanted = {c: {"train", "val", "test"} if n >= 3 else {"train", "test"} for c, n in n_of.items()}
    return any(
        all(wanted[c] <= {side for side, own in zip(sides, members, strict=True) if c in own} for c in wanted)
        for sides in product(("train", "val", "test"), repeat=len(members))
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sets(st.integers(0, 3), min_size=1, max_size=3), min_size=2, max_size=7), st.integers(0, 1_000_000))
def test_whenever_all_classes_can_be_on_all_sides_they_are(members, name):
    n_of = {c: sum(c in own for own in members) for own in members for c in own}
    assume(len(n_of) >= 2 and min(n_of.values()) >= 2)
    digests, y, groups = patients([sorted(own) for own in members], prefix=f"clinic {name}")
    splits = assign_splits(digests, y, groups=groups)
    sides = on_sides(y, splits)
    assert all("train" in found for found in sides.values())
    assert "test" in splits
    if an_assignment_exists(members):
        assert all(
            found >= ({"train", "val", "test"} if n_of[c] >= 3 else {"train", "test"}) for c, found in sides.items()
        )


def test_a_class_that_no_assignment_serves_is_trained_at_least():
    # Each two of three patients share a class, so two patients of one class stand on one side whatever is done.
    for name in range(100):
        digests, y, groups = patients([[0, 1], [1, 2], [0, 2]], prefix=f"ward {name}")
        splits = assign_splits(digests, y, groups=groups)
        assert all("train" in found for found in on_sides(y, splits).values())
        assert "test" in splits


def test_a_unit_without_which_train_lacks_a_class_is_not_tested():
    with pytest.raises(BadLabels, match="only the class 0 was found"):
        assign_splits(*patients([[0]], prefix="x")[:2])
    digests, y, groups = patients([[0, 1], [0, 1]], prefix="two")
    assert sorted(assign_splits(digests, y, groups=groups).tolist()) == ["test", "test", "train", "train"]


def test_where_all_classes_are_served_units_stay_where_their_hash_sends_them():
    rng = np.random.default_rng(3)
    groups = [f"patient {i}" for i in rng.integers(0, 200, 1500)]
    digests, y = many(1500), rng.integers(0, 4, 1500)
    units = units_of(digests, groups)
    u = unit_hashes(units, digests, groups)[units]
    expected = np.where(u < 0.2, "test", np.where(u < 0.36, "val", "train"))
    assert (assign_splits(digests, y, groups=groups) == expected).all()


def test_thousands_of_groups_with_many_classes_each_are_divided():
    rng = np.random.default_rng(4)
    members = [np.unique(rng.zipf(1.3, 6) % 400).tolist() for _ in range(600)]
    n_of = np.bincount([c for own in members for c in own], minlength=400)
    members = [[c for c in own if n_of[c] >= 2] for own in members]
    digests, y, groups = patients([own for own in members if own], prefix="archive")
    splits = assign_splits(digests, y, groups=groups)
    assert all(found >= {"train", "test"} for found in on_sides(y, splits).values())


def test_folds_keep_units_together_and_deal_classes_out():
    y = np.repeat([0, 1], 50)
    units = np.repeat(np.arange(50), 2)
    fold = assign_folds(units, y, 5, seed=1)
    assert (fold[::2] == fold[1::2]).all()
    assert all(np.bincount(fold[y == c], minlength=5).tolist() == [10] * 5 for c in (0, 1))
    assert (fold == assign_folds(units, y, 5, seed=1)).all()


@pytest.mark.parametrize("n_folds", [1, 4])
def test_folds_nobody_can_have_are_refused(n_folds):
    with pytest.raises(BadSplit, match=f"{n_folds} folds of 3 distinct samples"):
        assign_folds(np.arange(3), np.array([0, 1, 0]), n_folds)


def turn_by_turn(units, y, n_folds, seed):
    """Every unit of one row, in the order of the classes, to the next fold."""
    shuffled = np.random.default_rng(seed).permutation(len(units))
    fold = np.empty(len(units), dtype=int)
    fold[shuffled[np.argsort(y[shuffled], kind="stable")]] = np.arange(len(units)) % n_folds
    return fold


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.integers(2, 5), st.integers(0, 1000))
def test_units_of_one_row_are_dealt_in_turn_whether_or_not_another_unit_has_more(n, n_folds, seed):
    y = np.random.default_rng(seed).integers(0, 4, n)
    expected = turn_by_turn(np.arange(n), y, n_folds, seed)
    assert (assign_folds(np.arange(n), y, n_folds, seed=seed) == expected).all()
    # Every row twice: the rule for large units deals them as it does single ones.
    fold = assign_folds(np.repeat(np.arange(n), 2), np.repeat(y, 2), n_folds, seed=seed)
    assert (fold[::2] == expected).all()


@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_folds_of_groups_of_many_sizes_are_as_even_as_scikit_learns(n_classes):
    rng = np.random.default_rng(0)
    sizes = np.maximum(1, np.round(240 / np.arange(1, 41)).astype(int))
    groups = np.repeat(np.arange(40), sizes)
    y = rng.integers(0, n_classes, len(groups))
    referee = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    theirs = np.array([len(test) for _, test in referee.split(groups[:, None], y, groups)])
    for seed in range(5):
        fold = assign_folds(groups, y, 5, seed=seed)
        assert all(len(set(fold[groups == g])) == 1 for g in range(40))
        ours = np.bincount(fold, minlength=5)
        assert ours.max() - ours.min() <= 1.1 * (theirs.max() - theirs.min())


def test_groups_of_one_class_each_are_dealt_by_size_within_the_class():
    # Class 0: 8, 4, 4; class 1: 3, 3. Two folds can hold 8 + 3 each.
    units = np.repeat(np.arange(5), [8, 4, 4, 3, 3])
    y = np.repeat([0, 0, 0, 1, 1], [8, 4, 4, 3, 3])
    fold = assign_folds(units, y, 2)
    assert np.bincount(fold).tolist() == [11, 11]
    assert np.bincount(fold[y == 1]).tolist() == [3, 3]
