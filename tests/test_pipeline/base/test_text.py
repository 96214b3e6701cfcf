"""Names, numbers and tables as people read them."""

import random

import pytest
from tabulate import tabulate

from featurecache.base.text import count, count_is, table


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 images are"), (1, "1 image is"), (2, "2 images are"), (1234, "1,234 images are")]
)
def test_nouns_and_verbs_follow_the_number(n, said):
    assert count_is(n, "image") == said


def test_words_may_stand_between():
    assert count_is(1, "image", "without a label") == "1 image without a label is"
    assert count_is(2, "image", "without a label") == "2 images without a label are"


def test_a_plural_of_its_own_is_given():
    assert [count(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_a_markdown_table_says_which_columns_are_numbers():
    assert table([["a", "1"]], ["name", "n"], right=(1,), markdown=True).splitlines() == [
        "| name   |   n |",
        "|:-------|----:|",
        "| a      |   1 |",
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_plain_table_is_the_one_that_tabulate_makes(seed):
    chance = random.Random(seed)
    words = ["", "a", "0.5", "-1", "1e9", "a word", "x" * 30, " padded ", "caf\u00e9", "\u732b", "two\nlines", "|", "%"]
    n, right = chance.randrange(1, 5), chance.sample(range(4), 2)
    plain = words if seed % 2 else words[:7]
    headers, *rows = [[chance.choice(plain) for _ in range(n)] for _ in range(chance.randrange(1, 6))]
    sides = ["right" if i in right else "left" for i in range(n)]
    expected = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=sides if rows else None)
    assert table(rows, headers, right=right) == expected


def test_rows_of_other_lengths_than_the_header_are_padded():
    assert table([["a"], ["b", "c"]], ["name", "n"]).splitlines()[-2:] == ["a", "b       c"]
