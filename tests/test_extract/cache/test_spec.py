"""Two sets of features share a folder exactly when everything that they depend on is the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurecache.extract.cache.spec import (
    DECODES,
    DTYPES,
    INT8,
    NAME,
    PRECISIONS,
    FeatureSpec,
    backbone_slug,
    folder_name,
    image_digest,
    slug,
)
from featurecache.extract.cache.transform_spec import FITS, TransformSpec

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
    "range": "0:4095",
    "view": "light-v1:0:1",
    "ranges": "ef" * 32,
    "network": '{"architecture":"other"}',
}
OTHER_TRANSFORM_VALUES = {
    "resize": 17,
    "crop": 9,
    "interpolation": "bicubic",
    "antialias": False,
    "mean": (0.5, 0.5, 0.25),
    "std": (0.25, 0.25, 0.125),
    "fit": "squash",
    "fill": (124, 116, 104),
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
    fit=st.sampled_from(FITS),
    fill=st.sampled_from([(), (124, 116, 104)]),
)
SPECS = st.builds(
    FeatureSpec,
    backbone=st.from_regex(NAME, fullmatch=True),
    source=st.text(max_size=8),
    weights_digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    layer=st.text(max_size=8),
    pooling=st.sampled_from(["avg", "max", "gem", "flatten", "cls", "cls+avg"]),
    transform=TRANSFORMS,
    feature_dim=st.integers(1, 100_000),
    decode_version=st.integers(1, 9),
    precision=st.sampled_from([name for name in PRECISIONS if name != INT8]),
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
    assert {field.name for field in fields(spec)} == {*OTHER_VALUES, "transform", "about"}
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


def test_the_source_of_the_weights_is_in_the_file_and_in_no_key(spec):
    known = replace(spec, about={"license": "mit"})
    assert (known.key, known == spec, spec.differences(known)) == (spec.key, True, [])
    assert FeatureSpec.from_dict(json.loads(json.dumps(known.to_document()))).about == {"license": "mit"}
    strange = {**spec.to_dict(), "about": {"license": ["mit"], "source": "x" * 501, "commit": "abc"}}
    assert FeatureSpec.from_dict(strange).about == {"commit": "abc"}
    assert FeatureSpec.from_dict({**spec.to_dict(), "about": 3}).about == {}


@pytest.mark.parametrize("values", [{"fit": "stretch"}, {"fill": [1, 2]}, {"fill": [0, 0, 256]}, {"fill": 3}])
def test_another_way_to_fit_an_image_is_refused(spec, values):
    with pytest.raises((ValueError, TypeError)):
        TransformSpec.from_dict({**spec.transform.to_dict(), **values})


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


# Names of folders

KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "resnet50", "b@layer", "vgg16_bn", "regnet_y_400mf", "a+b=c.d-e"]
)
def test_a_plain_name_is_in_the_folder_as_it_is(name):
    assert slug(name) == name
    assert folder_name(name, KEY) == f"{name}-0123456789ab"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "hf-hub:timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
            "hf-hub_timm_vit_base_patch16_224.augreg2_in21k_ft_in1k",
        ),
        ("user/repo@revision", "user_repo@revision"),
        ("con", "_con"),
        ("NUL.tiny", "_NUL.tiny"),
        ("convnext_tiny", "convnext_tiny"),
        ("a<b>|c?*\\d", "a_b__c___d"),
        ("\u00e9l\u00e8ve", "_l_ve"),
    ],
)
def test_what_not_every_file_system_takes_is_replaced(name, expected):
    assert slug(name) == expected


@given(st.text(min_size=1, max_size=400))
def test_every_name_becomes_one_that_a_file_may_have_everywhere(name):
    folder = folder_name(name, KEY)
    assert len(folder.encode()) <= 213
    assert not set(folder) & set('<>:"/\\|?* ')
    assert backbone_slug(folder) == slug(name)
    assert slug(slug(name)) == slug(name)


def test_long_names_that_begin_alike_differ():
    assert slug("a" * 300) != slug("a" * 301)
    assert slug("a" * 200) == "a" * 200


@pytest.mark.parametrize("name", ["hf-hub:timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", "user/repo@revision"])
def test_a_spec_may_have_a_name_of_the_hub(spec, name):
    named = replace(spec, backbone=name)
    assert FeatureSpec.from_dict(named.to_dict()) == named
    assert "/" not in named.folder_name


@pytest.mark.parametrize("name", ["../up", "/etc", ".hidden", "", "a b"])
def test_a_name_that_leads_elsewhere_is_none(spec, name):
    with pytest.raises(ValueError, match="'backbone'"):
        FeatureSpec.from_dict({**spec.to_dict(), "backbone": name})
