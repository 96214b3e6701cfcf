import pytest

from featurecache.base import errors


@pytest.mark.parametrize("name", ["UnknownHead", "BadSplit", "BadLabels", "HeadFailed", "SavedHeadError"])
def test_every_error_can_be_caught_as_a_classify_error_and_stands_in_the_tree(name):
    assert issubclass(getattr(errors, name), errors.ClassifyError)
    assert name in errors.__doc__
