"""A config.json of somebody else: it leads to no other file or address, and every value is right or refused."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from featurecache.base.errors import BackboneError, WeightsMismatch
from featurecache.extract.backbones.registry import load_backbone


@pytest.fixture
def changed(folders, tmp_path):
    """Returns the name of a network whose config.json has other values."""

    def name_of(name: str = "changed", *, pretrained: dict | None = None, **values) -> str:
        folder = Path(shutil.copytree(folders("test_resnet")[0], tmp_path / name))
        config = json.loads((folder / "config.json").read_text())
        config["pretrained_cfg"] |= pretrained or {}
        (folder / "config.json").write_text(json.dumps(config | values))
        return f"local-dir:{folder}"

    return name_of


ELSEWHERE = {
    "checkpoint_path": "other.pth",
    "pretrained_cfg_overlay": {"source": "hf-hub", "hf_hub_id": "some/where"},
    "cache_dir": "/somewhere",
    "pretrained": False,
    "pretrained_strict": False,
    "pretrained_model_args": {},
    "features_only": True,
    "scriptable": True,
}


@pytest.mark.parametrize("argument", ELSEWHERE)
def test_arguments_that_are_of_timm_itself_are_refused(changed, monkeypatch, argument):
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with pytest.raises(WeightsMismatch, match=f"has '{argument}' among its model_args, which is no argument of an arc"):
        load_backbone(changed(model_args={argument: ELSEWHERE[argument]}))


@pytest.mark.parametrize("arguments", ["abc", [1, 2]])
def test_arguments_that_are_no_object_are_refused(changed, arguments):
    with pytest.raises(WeightsMismatch, match="has model_args that are no object"):
        load_backbone(changed(model_args=arguments))


@pytest.mark.parametrize("classifier", [5, [5, "fc"]])
def test_a_classifier_without_a_name_is_refused(changed, classifier):
    with pytest.raises(WeightsMismatch, match="has a classifier that is no name of a layer"):
        load_backbone(changed(pretrained={"classifier": classifier}))


STRANGE = {
    "input_size": ([64, 64], [3, 10**9, 10**9], [3, -5, -5], [3, 64.5, 64.5]),
    "crop_pct": (-1, "0.9", 1e-9),
    "mean": ("a", [0.5]),
    "std": ([0, 0, 0],),
}


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, values in STRANGE.items() for value in values])
def test_a_transform_that_is_none_is_refused(changed, field, value):
    with pytest.raises(BackboneError, match=r"has no transform of images: .* Correct its input_size, crop_pct, mean"):
        load_backbone(changed(pretrained={field: value}))


def test_all_tensors_of_a_vector_are_in_the_digest_whatever_is_named_the_classifier(changed):
    names = [changed(each, pretrained={"classifier": "layer1"}) for each in ("one", "other")]
    file = Path(names[1].removeprefix("local-dir:")) / "model.safetensors"
    tensors = load_file(file)
    (inner, *_) = [name for name in tensors if name.startswith("layer1.") and name.endswith("conv1.weight")]
    save_file({**tensors, inner: tensors[inner] * 2}, file)
    assert len({load_backbone(name).weights_digest for name in names}) == 2
