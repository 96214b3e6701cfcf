"""One is not many."""

import pytest

from featurecache.base.text import there_are


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 images are"), (1, "1 image is"), (2, "2 images are"), (1234, "1,234 images are")]
)
def test_nouns_and_verbs_follow_the_number(n, said):
    assert there_are(n, "image") == said


def test_words_may_stand_between():
    assert there_are(1, "image", "without a label") == "1 image without a label is"
