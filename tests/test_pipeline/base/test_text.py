"""Names, numbers and tables as people read them."""

import pytest

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
