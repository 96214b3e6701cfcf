"""Two sets of features share a folder exactly when everything that they depend on is the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurecache.extract.cache.spec import DECODES, DTYPES, NAME, PRECISIONS, FeatureSpec, image_digest
from featurecache.extract.cache.transform_spec import TransformSpec

OTHER_VALUES = {
    "backbone": "toy2",
    "source": "elsewhere",
    "weights_digest": "cd" * 32,
    "layer": "start",
    "pooling": "max",
    "feature_dim": 6,
    "decode_version": 2,
    "precision": "fp16",
    "dtype": "float16",
    "decode": "reduced",
    "view": "light-v1:0:1",
}
OTHER_TRANSFORM_VALUES = {
    "resize": 17,
    "crop": 9,
    "interpolation": "bicubic",
    "antialias": False,
    "mean": (0.5, 0.5, 0.25),
    "std": (0.25, 0.25, 0.125),
}

UNIT = st.floats(0, 1, allow_nan=False)
SCALE = st.floats(0.01, 1, allow_nan=False)
TRANSFORMS = st.builds(
    TransformSpec,
    resize=st.integers(1, 4096),
    crop=st.integers(1, 4096),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    antialias=st.booleans(),
    mean=st.tuples(UNIT, UNIT, UNIT),
    std=st.tuples(SCALE, SCALE, SCALE),
)
SPECS = st.builds(
    FeatureSpec,
    backbone=st.from_regex(NAME, fullmatch=True),
    source=st.text(max_size=8),
    weights_digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    layer=st.text(max_size=8),
    pooling=st.sampled_from(["avg", "max", "gem", "flatten", "cls"]),
    transform=TRANSFORMS,
    feature_dim=st.integers(1, 100_000),
    decode_version=st.integers(1, 9),
    precision=st.sampled_from(PRECISIONS),
    dtype=st.sampled_from(DTYPES),
    decode=st.sampled_from(DECODES),
    view=st.sampled_from(["", "light-v1:0:1"]),
)


def test_the_key_is_that_of_every_earlier_release(spec):
    assert spec.to_json() == (
        '{"backbone":"toy","decode_version":1,"dtype":"float32","feature_dim":5,"layer":"end","pooling":"avg",'
        '"precision":"fp32","source":"tests","transform":{"antialias":true,"crop":8,"interpolation":"bilinear",'
        '"mean":[0.5,0.5,0.5],"resize":16,"std":[0.25,0.25,0.25]},"weights_digest":"' + "ab" * 32 + '"}'
    )
    assert spec.key == "a32d16b3084aa22472d23755397905e5b030a57dd7bb88bcc4aa6c04713df7fa"
    assert spec.folder_name == "toy-a32d16b3084a"


def test_the_key_is_the_sha256_of_the_canonical_text(spec):
    assert spec.key == hashlib.sha256(spec.to_json().encode()).hexdigest()


def test_every_field_is_tried_below(spec):
    assert {field.name for field in fields(spec)} == {*OTHER_VALUES, "transform"}
    assert {field.name for field in fields(spec.transform)} == set(OTHER_TRANSFORM_VALUES)


@pytest.mark.parametrize("field", OTHER_VALUES)
def test_another_value_of_any_field_is_another_key(spec, field):
    other = replace(spec, **{field: OTHER_VALUES[field]})
    assert other.key != spec.key
    assert other.folder_name != spec.folder_name
    assert spec.differences(other) == other.differences(spec) == [field]


@pytest.mark.parametrize("field", OTHER_TRANSFORM_VALUES)
def test_another_value_of_any_transform_field_is_another_key(spec, field):
    other = replace(spec, transform=replace(spec.transform, **{field: OTHER_TRANSFORM_VALUES[field]}))
    assert other.key != spec.key
    assert spec.differences(other) == [f"transform.{field}"]


@given(SPECS)
def test_a_spec_survives_json(any_spec):
    again = FeatureSpec.from_dict(json.loads(any_spec.to_json()))
    assert again == any_spec
    assert again.key == any_spec.key
    assert any_spec.differences(again) == []


@given(SPECS, SPECS)
def test_keys_are_equal_exactly_when_specs_are(one, other):
    assert (one.key == other.key) == (one == other) == (one.differences(other) == [])


@pytest.mark.parametrize("values", [{}, {"backbone": "x"}, None, [], {"transform": None}])
def test_what_is_no_spec_is_refused(values):
    with pytest.raises((KeyError, TypeError)):
        FeatureSpec.from_dict(values)


def test_a_spec_without_one_of_its_fields_is_refused(spec):
    for field in spec.to_dict():
        values = spec.to_dict()
        del values[field]
        with pytest.raises(KeyError, match=field):
            FeatureSpec.from_dict(values)


def test_an_image_is_named_by_the_sha256_of_its_bytes():
    assert image_digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
