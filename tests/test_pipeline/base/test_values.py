"""A value that cannot be is one sentence: what it is, what there is, and what was probably meant."""

from pathlib import Path

import numpy as np
import pytest

import featurecache
from featurecache.base.errors import FeatureCacheError
from featurecache.base.values import no_such, not_of, not_whole

PRECISIONS = ("fp32", "fp16", "bf16")
NOTHING = featurecache.Manifest("nothing", ())


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("fp16", ""),
        ("FP16", "There is no precision 'FP16'; did you mean 'fp16'? Choose from fp32, fp16, bf16."),
        ("double", "There is no precision 'double': choose from fp32, fp16, bf16."),
        (None, "There is no precision None: choose from fp32, fp16, bf16."),
        (["fp16"], "There is no precision ['fp16']: choose from fp32, fp16, bf16."),
        ("fp16\x1b[2J", "There is no precision 'fp16\\x1b[2J'; did you mean 'fp16'? Choose from fp32, fp16, bf16."),
    ],
)
def test_a_name_is_one_of_those_there_are(value, sentence):
    assert no_such("precision", value, PRECISIONS) == sentence


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers_in_the_range_are_fine(value):
    assert not_whole("seed", value, 1, 7) == ""


@pytest.mark.parametrize("value", [0, 8, 1.0, True, "3", None])
def test_anything_else_is_not(value):
    assert not_whole("seed", value, 1, 7) == f"The seed is {value!r} and has to be a whole number of 1 to 7."


def test_a_list_is_not_one_of_its_members():
    assert not_of("heads", ["knn"], str) == not_of("heads", (), str) == ""
    assert not_of("heads", "knn", str) == "The heads are 'knn' and have to be a list of str."
    assert not_of("heads", [3], str) == "The heads are [3] and have to be a list of str."


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda: featurecache.train_heads(NOTHING, [], out=Path("run"), heads="knn"), "The heads are 'knn'"),
        (lambda: featurecache.train_heads(NOTHING, [], out=Path("run"), folds=1), "The folds is 1"),
        (lambda: featurecache.train_heads(NOTHING, ["pixels"], out=Path("run")), r"The features are \['pixels'\]"),
        (lambda: featurecache.train_heads(NOTHING, [], out=Path("run"), metric="acuracy"), "did you mean 'accuracy'"),
        (lambda: featurecache.train_heads(NOTHING, [], out=Path("run"), seed=-1), "The seed is -1"),
        (lambda: featurecache.extract_features(NOTHING, "pixels", Path("cache")), "The requests are 'pixels'"),
        (lambda: featurecache.select_backbones(NOTHING, "pixels", cache_root=Path("c")), "The backbones are 'pixels'"),
        (lambda: featurecache.select_backbones(NOTHING, ["pixels"], cache_root=Path("c"), n_sample=0), "n_sample is 0"),
        (
            lambda: featurecache.audit_images(NOTHING, featurecache.FeatureRequest(), cache_root=Path("c"), seed=0.5),
            "The seed is 0.5",
        ),
    ],
)
def test_public_functions_refuse_before_they_begin(call, wrong):
    with pytest.raises(FeatureCacheError, match=wrong):
        call()
