"""Classes are in an order that people expect, and names that look the same are pointed out."""

from __future__ import annotations

import pytest

from featurecache.extract.images.class_names import (
    in_order,
    remark_on_alike,
    remark_on_origins,
    remark_on_several,
)


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        ("10 9 0 1 11", "0 1 9 10 11"),
        ("-1 0.5 10 2", "-1 0.5 2 10"),
        ("1 01 2", "01 1 2"),
        ("10 9 cat", "10 9 cat"),
        ("b a", "a b"),
        ("", ""),
    ],
)
def test_numbers_are_in_the_order_of_numbers(names, ordered):
    assert in_order(set(names.split())) == ordered.split()


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("cat", "cat "), ("e\u0301", "\u00e9"), ("cat", "cat\u200b")])
def test_names_that_look_the_same_are_pointed_out(pair):
    (remark,) = remark_on_alike([*pair, None, "dog"])
    assert remark.startswith("Classes whose names differ only in case, spaces or Unicode form")
    assert "dog" not in remark
    assert remark.isprintable()


def test_other_names_need_no_remark():
    assert remark_on_alike(["cat", "cats", None]) == ()


@pytest.mark.parametrize(
    "names",
    [
        "2021/2022",
        "2021-03/2021-04/2022_01",
        "20210301/20210302",
        "2021-03-01 at the sea/2022-07-30",
        "01.03.2021/2.3.2021",
        "January/February/03-March",
        "100CANON/101CANON/102_PANA",
        "IMG_DCIM/Camera/Screenshots",
        "Cam1/Cam2/camera_3",
        "Canon EOS 5D/Nikon/iPhone 12",
        "2021/100APPLE",
    ],
)
def test_classes_that_look_like_dates_or_cameras_are_pointed_out(names):
    (remark,) = remark_on_origins([*names.split("/"), None])
    first = in_order(names.split("/"))[0]
    assert remark.startswith(f"The classes '{first}', ")
    assert "--layout flat" in remark


@pytest.mark.parametrize(
    "names",
    [
        "0/1/9",
        "1/12/31",
        "cat/2021",
        "2021",
        "apple/pear",
        "marble/maybe",
        "00100/12345",
        "12345678/23456789",
        "",
        "Apple___Apple_scab/Apple___healthy",
        "apple/Apple Braeburn 1",
        "came/camp/cams",
    ],
)
def test_classes_with_other_names_need_no_such_remark(names):
    assert remark_on_origins(names.split("/")) == ()


@pytest.mark.parametrize(
    "label",
    ["cat|dog", "cat; dog", "dog,cat", "cat/dog", "cat & dog", "cat+dog", "cat|dog|owl", "dog cat", "['cat', 'dog']"],
)
def test_a_label_that_is_made_of_others_is_named(label):
    (remark,) = remark_on_several(["cat", "dog", None, label, label])
    assert remark == (
        f"1 label with 2 images is made of other labels ('{label}') and is a class of its own: "
        "an image has one label here."
    )


def test_labels_that_are_made_of_parts_of_others_are_named_too():
    (remark,) = remark_on_several(["cat", "cat|dog", "cat|dog|owl", "owl|cat", "dog|owl"])
    assert remark.startswith("4 labels with 4 images are made of other labels ('cat|dog', 'cat|dog|owl', 'dog|owl' and")
    assert len(remark_on_several(["cat|dog", "dog|owl", "cat|owl"])) == 1


@pytest.mark.parametrize(
    "labels",
    [
        ["Lynx, Eurasian", "Lynx, Canadian", "Fox"],
        ["R&D", "R", "Sales"],
        ["1/2", "3/4"],
        ["sea lion", "sea snake", "lion"],
    ],
)
def test_a_label_with_a_separator_in_it_is_a_label(labels):
    assert remark_on_several(labels) == ()
