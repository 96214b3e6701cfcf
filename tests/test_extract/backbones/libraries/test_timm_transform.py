"""The pixels are those of timm's own transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache.base.errors import BackboneError
from featurecache.extract.backbones.libraries.timm_networks import TimmConfig
from featurecache.extract.backbones.libraries.timm_transform import timm_transform
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.transform import fit_pixels

N_IMAGES = 50
CONFIGS = {
    "center": {"crop_mode": "center", "crop_pct": 0.875, "interpolation": "bilinear"},
    "bicubic": {"crop_mode": "center", "crop_pct": 0.9, "interpolation": "bicubic"},
    "squash": {"crop_mode": "squash", "crop_pct": 0.95, "interpolation": "bicubic"},
    "whole": {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bilinear"},
    "border": {"crop_mode": "border", "crop_pct": 1.0, "interpolation": "bicubic"},
    "border, cropped": {"crop_mode": "border", "crop_pct": 0.8, "interpolation": "bilinear"},
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Odd-sized images (H, W, 3): waves in three colours and edges, so that every filter leaves its mark."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(N_IMAGES):
        height, width = (int(side) for side in random.integers(15, 170, 2) * 2 + 1)
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / a + y / b) for a, b in random.uniform(3.0, 20.0, (3, 2))]
        image = 127.5 + 90 * np.stack(waves, 2) + 40 * ((x // 9 + y // 13) % 2)[..., None] - 20
        found.append(image.clip(0, 255).astype(np.uint8))
    return found


def config_of(name: str) -> TimmConfig:
    values = {"input_size": (3, 96, 96), "mean": MEAN, "std": STD, **CONFIGS[name]}
    return TimmConfig("resnet18", values)


def theirs(timm, name: str, picture: np.ndarray) -> np.ndarray:
    """timm's own transform, back in levels of 0 to 255: (3, S, S)."""
    config = timm.data.resolve_data_config({}, pretrained_cfg=dict(config_of(name).pretrained))
    pixels = timm.data.create_transform(**config, is_training=False)(Image.fromarray(picture))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((pixels * std + mean) * 255).numpy()


def are_alike(ours: np.ndarray, reference: np.ndarray) -> bool:
    """Whether 99 % of the pixels are within 1 of 255, and all within 3."""
    apart = np.abs(ours.astype(np.float64) - reference)
    return bool((apart <= 1.01).mean() >= 0.99 and apart.max() <= 3.01)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_pixels_are_those_of_timm(timm, pictures, name):
    spec = timm_transform("timm/any", config_of(name))
    assert TransformSpec.from_dict(spec.to_dict()) == spec
    for picture in pictures:
        assert are_alike(fit_pixels(picture.transpose(2, 0, 1), spec), theirs(timm, name, picture))


def as_bgr(picture, spec):
    return fit_pixels(np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)), spec)


def by_another_filter(picture, spec):
    other = {"bilinear": "bicubic", "bicubic": "bilinear"}[spec.interpolation]
    return fit_pixels(picture.transpose(2, 0, 1), TransformSpec(**{**vars(spec), "interpolation": other}))


def without_antialias(picture, spec):
    return fit_pixels(picture.transpose(2, 0, 1), TransformSpec(**{**vars(spec), "antialias": False}))


@pytest.mark.parametrize("wrong", [as_bgr, by_another_filter, without_antialias])
@pytest.mark.parametrize("name", ["center", "squash", "border"])
def test_a_planted_fault_is_found(timm, pictures, name, wrong):
    spec = timm_transform("timm/any", config_of(name))
    assert not all(are_alike(wrong(picture, spec), theirs(timm, name, picture)) for picture in pictures[:10])


def test_values_of_a_key_are_plain_and_those_of_a_usual_crop_stay_as_they_are(timm):
    assert "fit" not in timm_transform("timm/any", config_of("center")).to_dict()
    assert timm_transform("timm/any", config_of("border")).to_dict()["fill"] == [123, 117, 104]
    assert timm_transform("timm/any", config_of("center"), size=48).crop == 48


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"input_size": (3, 96, 64)}, "images are extracted as squares"),
        ({"input_size": (1, 96, 96)}, "takes images of 1 channels"),
        ({"interpolation": "lanczos"}, "resizes images by 'lanczos'"),
        ({"crop_mode": "corner"}, "crops them by 'corner'"),
    ],
)
def test_what_no_transform_expresses_is_refused(timm, values, message):
    config = TimmConfig("resnet18", {**config_of("center").pretrained, **values})
    with pytest.raises(BackboneError, match=message):
        timm_transform("timm/any", config)
