import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision import models

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.transform_spec import TransformSpec, scaled_to
from featurecache.extract.images.transform import apply_transform

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BILINEAR = TransformSpec(256, 224, "bilinear", True, *IMAGENET)
BICUBIC = TransformSpec(232, 224, "bicubic", True, *IMAGENET)
PRESETS = {
    "bilinear": (BILINEAR, models.ResNet50_Weights.IMAGENET1K_V1),
    "convnext": (TransformSpec(236, 224, "bilinear", True, *IMAGENET), models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1),
    "bicubic": (BICUBIC, models.Swin_T_Weights.IMAGENET1K_V1),
}


def photo(name: str, width: int, height: int) -> Image.Image:
    return Image.fromarray(load_sample_image(name)).resize((width, height), Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()


def as_pixels(normalised: torch.Tensor, spec: TransformSpec) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    return (normalised * std + mean) * 255


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(640, 427), (300, 500), (224, 224), (97, 61), (1000, 231)])
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_pixels_are_those_of_the_weights_own_transform(preset, size, name):
    spec, weights = PRESETS[preset]
    image = photo(name, *size)

    ours = apply_transform(to_tensor(image), spec)
    theirs = as_pixels(weights.transforms()(image), spec)

    assert ours.dtype == torch.uint8
    assert ours.shape == (3, spec.crop, spec.crop)
    difference = (ours.float() - theirs).abs().round()
    assert difference.max() <= 2
    assert (difference > 1).float().mean() < 1e-3


@pytest.mark.parametrize("preset", ["bilinear", "bicubic"])
def test_vectors_are_those_of_the_weights_own_transform(preset):
    spec, weights = PRESETS[preset]
    torch.manual_seed(0)
    network = models.shufflenet_v2_x0_5(weights=None).eval()
    network.fc = torch.nn.Identity()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    for image in (photo("china.jpg", 640, 427), photo("flower.jpg", 333, 500)):
        theirs = network(weights.transforms()(image)[None])
        ours = network(((apply_transform(to_tensor(image), spec) / 255 - mean) / std)[None])
        assert torch.cosine_similarity(ours, theirs).item() >= 0.9999


def test_antialiasing_can_be_switched_off():
    image = to_tensor(photo("china.jpg", 640, 427))
    sharp = TransformSpec(64, 64, "bilinear", False, *IMAGENET)
    smooth = TransformSpec(64, 64, "bilinear", True, *IMAGENET)
    difference = apply_transform(image, sharp).float() - apply_transform(image, smooth).float()
    assert difference.abs().max() > 10


def test_a_spec_survives_json():
    assert TransformSpec.from_dict(json.loads(json.dumps(BICUBIC.to_dict()))) == BICUBIC


def test_another_size_cuts_out_the_same_part():
    spec = TransformSpec(256, 224, "bilinear", True, (0.5,) * 3, (0.25,) * 3)
    half = scaled_to(spec, 112)
    assert (half.resize, half.crop) == (128, 112)
    assert scaled_to(half, 224) == spec


def test_an_image_that_would_fill_the_memory_is_refused():
    line = torch.zeros((3, 1, 10_000), dtype=torch.uint8)
    with pytest.raises(ImageRefused) as refused:
        apply_transform(line, BILINEAR)
    assert str(refused.value) == (
        "10000 x 1 pixels is too elongated: with its shortest side at 256 it would exceed 178,956,970 pixels"
    )


def test_a_long_image_within_the_limit_is_taken():
    line = torch.full((3, 2, 2_000), 7, dtype=torch.uint8)
    assert apply_transform(line, BILINEAR).unique().tolist() == [7]


def test_importing_the_spec_does_not_import_torch():
    code = "import sys, featurecache.extract.images.transform; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "False\n"
