import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classify.errors import BadLabels, BadSplit
from classify.splits import assign_folds, assign_splits


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


def test_a_class_with_a_single_image_is_refused_by_name():
    with pytest.raises(BadLabels) as refused:
        assign_splits(many(20), np.array([0] * 19 + [1]), classes=["cat", "dog"])
    assert str(refused.value) == (
        "The class 'dog' has a single image, which cannot be in both train and test: "
        "add images of it or leave the class out."
    )


def test_a_class_that_is_one_image_copied_is_refused():
    digests = np.concatenate([many(20), np.repeat(many(1, start=4), 3, axis=0)])
    with pytest.raises(BadLabels, match="All 3 images of the class 1 are copies of one or share a group"):
        assign_splits(digests, np.array([0] * 20 + [1] * 3))


def test_a_class_that_train_lacks_is_refused_by_name():
    given = ["train"] * 4 + ["test"] * 2 + ["val"]
    with pytest.raises(BadLabels) as refused:
        assign_splits(many(7), np.array([0, 1, 0, 1, 0, 2, 1]), given=given, classes=["cat", "dog", "eel"])
    assert str(refused.value) == (
        "The class 'eel' is in test but not in train: add training images of it or leave the class out."
    )


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
