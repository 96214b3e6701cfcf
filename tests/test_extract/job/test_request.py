"""What a name resolved to is believed for as long as nothing that it depends on has changed."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from featurecache.base.errors import RequestError
from featurecache.base.versions import installed_version
from featurecache.extract.backbones.registry import Backbone
from featurecache.extract.cache.memo import FILE_NAME, FileState, Memo
from featurecache.extract.images.decode_rules import DECODE_VERSION
from featurecache.extract.job import request as requests
from featurecache.extract.job.request import FeatureRequest, recall, remember, resolve
from featurecache.extract.job.settings import Settings

OTHER_VALUES = {
    "backbone": "resnet18",
    "weights": "IMAGENET1K_V1",
    "layer": "layer3",
    "pooling": "max",
    "precision": "fp16",
    "dtype": "float16",
    "decode": "reduced",
    "range": "0:4095",
    "size": 96,
    "view": "light-v1:0:1",
}


@pytest.fixture
def backbone(tmp_path, spec):
    weights = tmp_path / "weights.pth"
    torch.save({"w": torch.zeros(3)}, weights)
    return Backbone(
        name=spec.backbone,
        source=spec.source,
        weights="weights.pth",
        weights_path=weights,
        weights_digest=spec.weights_digest,
        weights_state=FileState.of(weights.stat()),
        layer=spec.layer,
        pooling=spec.pooling,
        transform=spec.transform,
        feature_dim=spec.feature_dim,
        module=nn.Identity(),
    )


@pytest.fixture
def memo(tmp_path):
    with Memo(tmp_path / "cache") as memo:
        yield memo


@pytest.fixture
def remembered(backbone, memo):
    request = FeatureRequest("toy")
    remember(request, resolve(request, backbone), backbone, memo)
    return request


def test_a_request_resolves_to_all_that_the_backbone_says(backbone, spec):
    resolved = resolve(FeatureRequest("toy"), backbone)
    assert resolved.spec == replace(spec, decode_version=DECODE_VERSION)
    assert resolved.weights == "weights.pth"


def test_precision_and_dtype_come_from_the_request(backbone):
    resolved = resolve(FeatureRequest("toy", precision="bf16", dtype="float16"), backbone)
    assert (resolved.spec.precision, resolved.spec.dtype) == ("bf16", "float16")


def test_the_default_request_is_the_backbone_that_comes_with_pip():
    assert FeatureRequest() == FeatureRequest("efficientnet_lite0", None, None, None, "fp32", "float32")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "int8"),
        ("dtype", ["float32"]),
        ("decode", "reducd"),
        ("precision", "fp8"),
        ("pooling", "mean"),
        ("size", 0),
        ("size", 10**9),
        ("size", 224.0),
        ("size", True),
        ("backbone", None),
        ("backbone", 3),
        ("weights", 3),
        ("layer", ["a"]),
        ("layer", "x" * 10_000),
        ("view", None),
    ],
)
def test_a_value_that_there_is_not_is_refused_with_those_there_are(name, value):
    with pytest.raises(RequestError, match=name):
        FeatureRequest(**{name: value})
    with pytest.raises(RequestError):
        FeatureRequest.from_dict({name: value})


def test_the_sentence_names_what_there_is():
    with pytest.raises(RequestError) as raised:
        FeatureRequest(dtype="int8")
    assert str(raised.value) == "There is no dtype 'int8': choose from float32, float16."
    with pytest.raises(RequestError) as raised:
        FeatureRequest(decode="reducd")
    assert str(raised.value) == "There is no decode 'reducd'; did you mean 'reduced'? Choose from full, reduced."


@pytest.mark.parametrize("values", [None, [], "efficientnet_lite0", {"command": "rm"}])
def test_what_is_no_request_is_none(values):
    with pytest.raises(RequestError):
        FeatureRequest.from_dict(values)


def test_every_request_comes_back_from_its_fields():
    request = FeatureRequest(**OTHER_VALUES)
    assert FeatureRequest.from_dict(asdict(request)) == request


@pytest.mark.parametrize(
    "values",
    [
        {"on_error": "ignore"},
        {"on_error": None},
        {"max_pixels": 0},
        {"max_pixels": 1e9},
        {"batch_size": 0},
        {"batch_size": True},
        {"batch_size": "8"},
        {"engine": "onnx"},
        {"device": "gpu"},
    ],
)
def test_settings_that_there_are_not_are_refused(values):
    with pytest.raises(RequestError, match=next(iter(values))):
        Settings(**values)


def test_an_answer_is_recalled_without_a_backbone(remembered, backbone, memo, monkeypatch):
    monkeypatch.setattr(FeatureRequest, "load", lambda _: pytest.fail("a backbone was loaded"))
    assert recall(remembered, memo) == resolve(remembered, backbone)


def test_an_answer_is_recalled_in_the_next_process(remembered, backbone, tmp_path):
    with Memo(tmp_path / "cache") as again:
        assert recall(remembered, again) == resolve(remembered, backbone)


def test_every_field_is_tried_below():
    assert {field.name for field in fields(FeatureRequest)} == set(OTHER_VALUES)


@pytest.mark.parametrize("field", OTHER_VALUES)
def test_another_request_is_another_question(remembered, memo, field):
    assert recall(replace(remembered, **{field: OTHER_VALUES[field]}), memo) is None


def test_other_weights_in_the_same_file_are_noticed(remembered, backbone, memo):
    torch.save({"w": torch.ones(3)}, backbone.weights_path)
    assert recall(remembered, memo) is None


def test_a_weights_file_that_is_gone_is_noticed(remembered, backbone, memo):
    backbone.weights_path.unlink()
    assert recall(remembered, memo) is None


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", "HOME"])
def test_another_place_to_look_for_weights_is_noticed(remembered, memo, monkeypatch, variable):
    monkeypatch.setenv(variable, "/elsewhere")
    assert recall(remembered, memo) is None


def test_another_version_of_a_library_that_names_weights_is_noticed(remembered, memo, monkeypatch):
    monkeypatch.setattr(requests, "installed_version", lambda name: "99")
    assert recall(remembered, memo) is None


def test_a_weights_file_is_the_same_by_every_path_to_it(backbone, memo, tmp_path, monkeypatch):
    asked = FeatureRequest("toy", weights=str(backbone.weights_path))
    remember(asked, resolve(asked, backbone), backbone, memo)
    monkeypatch.chdir(tmp_path)
    assert recall(replace(asked, weights="weights.pth"), memo) == resolve(asked, backbone)
    assert recall(replace(asked, weights="other.pth"), memo) is None


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """The source of the package in a folder where it can be edited; the code that runs stays."""
    copy = shutil.copytree(Path(requests.__file__).parents[1], tmp_path / "extract")
    monkeypatch.setattr(requests, "__file__", str(copy / "job" / "request.py"))
    return copy


def edit(module):
    with module.open("a") as file:
        file.write("\n# edited\n")


RESOLVING = [
    "backbones/registry",
    "backbones/weights",
    "backbones/architectures",
    "backbones/pooling",
    "images/transform",
]


@pytest.mark.parametrize("module", [*RESOLVING, "images/decode", "cache/spec", "cache/transform_spec", "job/request"])
def test_an_edit_of_the_code_that_resolves_is_noticed(copied_package, remembered, backbone, memo, module):
    assert recall(remembered, memo) is not None
    edit(copied_package / f"{module}.py")
    assert recall(remembered, memo) is None


@pytest.mark.parametrize("module", ["cache/store", "images/manifest", "engines/choice", "job/plan", "__init__"])
def test_an_edit_of_other_code_is_not(copied_package, remembered, memo, module):
    edit(copied_package / f"{module}.py")
    assert recall(remembered, memo) is not None


@pytest.mark.parametrize("answer", ["", "null", "[]", "{}", '{"weights_path": "/", "state": 1}', '{"weights_path": 3}'])
def test_a_damaged_answer_is_no_answer(remembered, memo, tmp_path, answer):
    with sqlite3.connect(tmp_path / "cache" / FILE_NAME) as database:
        database.execute("UPDATE requests SET answer = ?", (answer,))
    database.close()
    assert recall(remembered, memo) is None


def test_versions_are_those_of_the_distributions():
    assert installed_version("torch").partition("+")[0] == torch.__version__.partition("+")[0]
    assert installed_version("no-such-distribution") is None
