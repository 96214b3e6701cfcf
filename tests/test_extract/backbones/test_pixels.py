"""The pixels go through everything a network goes through, and come out as themselves."""

import hashlib

import pytest
import torch

from featurecache.base.errors import WeightsMissing
from featurecache.extract.backbones.listing import list_backbones
from featurecache.extract.backbones.registry import backbone_dim, load_backbone
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.protocol import source_of
from featurecache.extract.images.transform import apply_transform


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_vector_is_the_small_image_itself(images):
    backbone = load_backbone("pixels")
    assert backbone.feature_dim == 3 * 32 * 32
    assert torch.allclose(backbone.module(images), images.flatten(1) / 255)


def test_an_engine_gives_the_same(images):
    vectors = torch.from_numpy(build_engine(source_of(load_backbone("pixels")), engine="torch").run(images))
    assert torch.allclose(vectors, images.flatten(1) / 255)


def test_a_large_image_is_averaged_down_to_32_pixels():
    image = torch.full((3, 320, 640), 40, dtype=torch.uint8)
    image[:, :, 320:] = 200
    small = apply_transform(image, load_backbone("pixels").transform)
    assert small.shape == (3, 32, 32)
    assert set(small[:, :, :15].unique().tolist()) == {40}
    assert set(small[:, :, 17:].unique().tolist()) == {200}


def test_the_weights_are_nothing_and_their_digest_that_of_nothing():
    backbone = load_backbone("pixels")
    assert (backbone.weights, backbone.source) == ("none", "pixels")
    assert backbone.weights_digest == hashlib.sha256(b"").hexdigest()


def test_its_map_can_be_pooled_to_the_mean_colour(images):
    assert backbone_dim("pixels", layer="pixels") == 3
    colours = load_backbone("pixels", pooling="avg").module(images)
    assert torch.allclose(colours, images.float().mean((2, 3)) / 255, atol=1e-6)


def test_stages_of_the_pixels_are_the_pixels(images):
    assert torch.equal(load_backbone("pixels", layer="stages").module(images), load_backbone("pixels").module(images))


def test_weights_for_the_pixels_are_refused():
    with pytest.raises(WeightsMissing) as refused:
        load_backbone("pixels", weights="IMAGENET1K_V1")
    assert str(refused.value) == (
        "The backbone pixels is the image itself and has no weights: leave out --weights, or extract it alone."
    )


def test_it_is_listed_and_needs_no_download():
    (info,) = (info for info in list_backbones() if info.name == "pixels")
    assert (info.weights, info.at_hand) == (["none"], True)
