"""Classes are in an order that people expect, and names that look the same are pointed out."""

from __future__ import annotations

import pytest

from featurecache.extract.images.class_names import in_order, remark_on_alike


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


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("cat", "cat "), ("e\u0301", "\u00e9")])
def test_names_that_look_the_same_are_pointed_out(pair):
    (remark,) = remark_on_alike([*pair, None, "dog"])
    assert remark.startswith("Classes whose names differ only in case, spaces or Unicode form")
    assert "dog" not in remark
    assert remark.isprintable()


def test_other_names_need_no_remark():
    assert remark_on_alike(["cat", "cats", None]) == ()
