"""A folder is read in the one way that there is, and where there are two, both are named."""

from __future__ import annotations

from collections import Counter

import pytest

from featurecache.base.errors import ManifestError, RequestError
from featurecache.extract.images.folders.layouts import parse_layout
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.images.folders.split_names import split_roles


def make(root, *names, n=2):
    for name in names:
        for i in range(n):
            path = root / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def summary(manifest):
    """{(label, split): number of images}."""
    return dict(Counter((sample.label, sample.split) for sample in manifest.samples))


def of(*rows, n=2):
    """The same for rows such as `cat train`, with - for None."""
    pairs = [row.rsplit(" ", 1) for row in rows]
    return {tuple(None if word == "-" else word for word in pair): n for pair in pairs}


SPLITS = ("cat train", "dog train", "cat test", "dog test")
READ = {
    "words of tutorials": (["Training/cat", "Training/dog", "Testing/cat", "Testing/dog"], of(*SPLITS)),
    "three words": (
        ["training/cat", "training/dog", "val/cat", "val/dog", "test/cat", "test/dog"],
        of(*SPLITS, "cat val", "dog val"),
    ),
    "dev is val": (["train/cat", "dev/cat", "eval/cat"], of("cat train", "cat val", "cat test")),
    "eval is val next to test": (["train/cat", "eval/cat", "test/cat"], of("cat train", "cat val", "cat test")),
    "dev is train where nothing else is": (["dev/cat", "eval/cat"], of("cat train", "cat test")),
    "held out": (["train/cat", "hold-out/cat"], of("cat train", "cat test")),
    "with numbers": (["train2017/cat", "val2017/cat"], of("cat train", "cat val")),
    "glued": (["TrainSet/cat", "testset/cat", "valimages/cat"], of("cat train", "cat test", "cat val")),
    "several folders of a split": (["train_1/cat", "train_2/dog", "test/cat"], of(*SPLITS[:3])),
    "a shared word": (["seg_train/cat", "seg_test/cat"], of("cat train", "cat test")),
    "wrapped splits": (
        ["seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat", "seg_pred/seg_pred"],
        of("cat train", "dog train", "cat test", "- test"),
    ),
    "images in splits": (["train/images/cat", "train/images/dog", "test/images/cat"], of(*SPLITS[:3])),
    "flat splits with a folder": (["train/images", "val/images"], of("- train", "- val")),
    "splits below images": (["images/train", "images/val"], of("- train", "- val")),
    "a test without classes": (["train/cat", "train/dog", "test"], of(*SPLITS[:2], "- test")),
    "a test of unknown classes": (["train/cat", "train/dog", "test/unknown"], of(*SPLITS[:2], "- test")),
    "splits below classes": (["cat/train", "cat/test", "dog/train", "dog/test"], of(*SPLITS)),
    "odd splits below classes": (["cat/Training", "cat/Eval", "dog/Training"], of(*SPLITS[:3])),
    "one split below classes": (["cat/train", "dog/train"], of("cat -", "dog -")),
    "wrapped": (["dataset/cat", "dataset/dog"], of("cat -", "dog -")),
    "wrapped twice": (["a/b/cat", "a/b/dog"], of("cat -", "dog -")),
    "wrapped splits of one folder": (["data/train/cat", "data/test/cat"], of("cat train", "cat test")),
    "wrapped splits below classes": (["d/cat/train", "d/cat/test", "d/dog/test"], of(*SPLITS[:1], *SPLITS[2:])),
    "one class": (["cat"], of("cat -")),
    "one class with a folder": (["cat/may"], of("cat -")),
    "only train": (["train/cat", "train/dog"], of(*SPLITS[:2])),
    "letters above classes": (["a/abbey", "a/airport", "b/bakery"], of("abbey -", "airport -", "bakery -")),
    "a vehicle": (["train", "bus", "car"], of("train -", "bus -", "car -")),
    "landmarks": (["train_station", "bus_station", "test_tube"], of("train_station -", "bus_station -", "test_tube -")),
    "days": (["cat/day1", "cat/day2", "dog/day1", "dog/day3"], of("cat -", "dog -", n=4)),
    "patients": (["ill/p01", "ill/p02", "well/p03", "well/p04"], of("ill -", "well -", n=4)),
    "dates": (["cat/2020-01", "cat/2020-02", "dog/2021-01", "dog/2021-02"], of("cat -", "dog -", n=4)),
    "images and folders in a class": (["cat", "cat/siamese", "dog/poodle", "dog/beagle"], of("cat -", "dog -", n=4)),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_folder_is_read_in_the_way_that_there_is(tmp_path, name):
    folders, expected = READ[name]
    manifest = scan_folder(make(tmp_path, *folders))
    assert summary(manifest) == expected
    assert not manifest.left_out.counts


TWO_WAYS = {
    "splits in another language": (
        ["entrenamiento/cat", "entrenamiento/dog", "prueba/cat", "prueba/dog"],
        {"class": of("entrenamiento -", "prueba -", n=4), "any/class": of("cat -", "dog -", n=4)},
    ),
    "folds": (
        ["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog", "fold3/cat", "fold3/dog"],
        {"class": of("fold1 -", "fold2 -", "fold3 -", n=4), "any/class": of("cat -", "dog -", n=6)},
    ),
    "kinds and breeds": (
        ["cat/siamese", "cat/persian", "dog/poodle", "dog/beagle"],
        {"class": of("cat -", "dog -", n=4), "any/class": of("siamese -", "persian -", "poodle -", "beagle -")},
    ),
    "Places365": (
        ["a/abbey", "b/balcony/inside", "b/balcony/outside"],
        {
            "class": {("a", None): 2, ("b", None): 4},
            "leaf": of("a/abbey -", "b/balcony/inside -", "b/balcony/outside -"),
        },
    ),
    "some classes with splits": (
        ["cat/train", "cat/test", "dog"],
        {"class": {("cat", None): 4, ("dog", None): 2}, "class/split": of("cat train", "cat test")},
    ),
    "MVTec": (
        ["pill/train/good", "pill/test/good", "pill/test/bad", "nut/train/good", "nut/test/bad"],
        {
            "class/split": {("pill", "train"): 2, ("pill", "test"): 4, ("nut", "train"): 2, ("nut", "test"): 2},
            "any/split/class": {("good", "train"): 4, ("good", "test"): 2, ("bad", "test"): 4},
        },
    ),
    "splits and another": (
        ["train/cat", "val/cat", "raw"],
        {"split/class": of("cat train", "cat val"), "class": of("train -", "val -", "raw -")},
    ),
    "two splits and another, flat": (["dev", "test", "prod"], {"class": of("dev -", "test -", "prod -")}),
    "names of two things": (
        ["trainA", "trainB", "testA", "testB"],
        {"class": of("trainA -", "trainB -", "testA -", "testB -")},
    ),
    "wrapped kinds": (
        ["d/cat/siamese", "d/cat/persian", "d/dog/poodle"],
        {"any/class": {("cat", None): 4, ("dog", None): 2}, "any/any/class": of("siamese -", "persian -", "poodle -")},
    ),
    "kinds in splits": (
        ["train/cat/siamese", "train/cat/persian", "train/dog/poodle", "test/cat/persian"],
        {
            "split/class": {("cat", "train"): 4, ("dog", "train"): 2, ("cat", "test"): 2},
            "split/any/class": of("siamese train", "persian train", "poodle train", "persian test"),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TWO_WAYS)
def test_where_there_are_two_ways_both_are_named_and_can_be_chosen(tmp_path, name):
    folders, ways = TWO_WAYS[name]
    make(tmp_path, *folders)
    with pytest.raises(ManifestError, match=r"can be read in two ways: ") as raised:
        scan_folder(tmp_path)
    for layout, expected in ways.items():
        assert f"(--layout {layout})" in str(raised.value)
        assert summary(scan_folder(tmp_path, layout)) == expected


def test_a_split_in_a_split_is_refused(tmp_path):
    make(tmp_path, "train/cat", "train/dog", "train/test", "test/cat")
    with pytest.raises(ManifestError, match="in 'train' there is 'test', which is a split too"):
        scan_folder(tmp_path)


def test_a_layout_by_name_accounts_for_what_it_leaves_out(tmp_path):
    make(tmp_path, "train/cat", "val/cat", "raw", "train", ".")
    manifest = scan_folder(tmp_path, "split/class")
    assert summary(manifest) == of("cat train", "cat val")
    assert manifest.left_out.to_dict()["by_reason"] == [
        {"reason": "loose", "suffix": ".png", "n": 4},
        {"reason": "outside_splits", "suffix": ".png", "n": 2},
    ]


def test_a_level_can_be_a_group(tmp_path):
    manifest = scan_folder(make(tmp_path, "cat/p1", "cat/p2", "dog/p3"), "class/group")
    assert {(sample.label, sample.group) for sample in manifest.samples} == {
        ("cat", "p1"),
        ("cat", "p2"),
        ("dog", "p3"),
    }


def test_flat_gives_no_labels_at_any_depth(tmp_path):
    assert summary(scan_folder(make(tmp_path, "cat/deep", "."), "flat")) == of("- -", n=4)


@pytest.mark.parametrize(
    "text", ["", "classes", "class/class", "leaf/split", "split/split/class", "class/leaf", "*/class"]
)
def test_a_layout_that_there_is_not_is_refused(text):
    with pytest.raises(RequestError, match="It names the levels of folders from the top"):
        parse_layout(text)


def test_words_for_splits_need_company():
    assert split_roles(["pred", "unlabeled"]) == {}
    assert split_roles(["Training Set", "hold_out"]) == {"Training Set": "train", "hold_out": "test"}
    assert split_roles(["freight_train", "passenger_train"]) == {}
    assert split_roles(["train-test"]) == {}


def test_names_that_are_nearly_the_same_are_pointed_out(tmp_path):
    make(tmp_path, "Cat", "cat ", "dog", "caf\u00e9", "cafe\u0301")
    (remark,) = scan_folder(tmp_path).remarks
    assert "'Cat' and 'cat '; 'cafe\\u0301' and 'caf\u00e9'" in remark


def test_odd_readings_are_remarked_on(tmp_path):
    make(tmp_path, "seg_train/seg_train/cat", "seg_pred/seg_pred")
    (remark,) = scan_folder(tmp_path).remarks
    assert remark == "The folders are splits: 'seg_pred' as images without labels, 'seg_train' as train."


def test_a_class_that_is_called_like_a_split_is_remarked(tmp_path):
    make(tmp_path, "cat", "dog", "test")
    manifest = scan_folder(tmp_path)
    assert manifest.classes == ["cat", "dog", "test"]
    assert any("'test' is read as a class" in note for note in manifest.notes)


@pytest.mark.parametrize(
    "names", [["2021/03", "2021/04"], ["2021/03", "2022/03", "2022/04"], ["photos/2021-03-01", "photos/2021-03-02"]]
)
def test_folders_of_dates_are_remarked_on_unless_the_layout_is_named(tmp_path, names):
    make(tmp_path, *names)
    assert any("look like dates or cameras" in remark for remark in scan_folder(tmp_path).remarks)
    assert not any("look like" in remark for remark in scan_folder(tmp_path, "class").remarks)
    assert {sample.label for sample in scan_folder(tmp_path, "flat").samples} == {None}


def test_months_without_a_year_may_be_digits(tmp_path):
    make(tmp_path, "digits/01", "digits/02")
    assert not any("look like" in remark for remark in scan_folder(tmp_path).remarks)
