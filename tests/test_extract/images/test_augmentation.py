"""A view is drawn from a seed: the same picture every time, another one for another number, image or kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache import FeatureRequest, extract_features, read_images
from featurecache.base.errors import ExtractError
from featurecache.extract.images.augmentation import VIEW_KINDS, View, apply_view

DIGEST = bytes(range(32))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", VIEW_KINDS)
def test_a_view_is_the_same_every_time_and_keeps_shape_and_type(image, kind):
    once, again = (apply_view(image, View(kind, 3, 1), DIGEST) for _ in range(2))
    assert once.equal(again)
    assert (once.shape, once.dtype) == (image.shape, image.dtype)
    assert not once.equal(image)


@pytest.mark.parametrize("kind", ["light", "strong"])
def test_another_number_seed_or_image_is_another_view(image, kind):
    view = View(kind, 0, 1)
    others = [apply_view(image, replace(view, number=2), DIGEST), apply_view(image, replace(view, seed=1), DIGEST)]
    others.append(apply_view(image, view, DIGEST[::-1]))
    assert not any(apply_view(image, view, DIGEST).equal(other) for other in others)


def test_flip_mirrors_every_other_view(image):
    assert apply_view(image, View("flip", 0, 1), DIGEST).equal(image.flip(-1))
    assert apply_view(image, View("flip", 0, 2), DIGEST).equal(image)


def test_light_views_are_never_mirrored_and_strong_ones_half_of_the_time():
    ramp = torch.arange(0, 240, 6, dtype=torch.uint8).expand(3, 40, 40)

    def n_mirrored(kind: str) -> int:
        views = [apply_view(ramp, View(kind, 0, number), DIGEST).float() for number in range(1, 101)]
        return sum(bool(view[..., :20].mean() > view[..., 20:].mean()) for view in views)

    assert n_mirrored("light") == 0
    assert 30 < n_mirrored("strong") < 70


def test_a_view_leaves_the_image_that_it_is_drawn_from_alone(image):
    before = image.clone()
    for kind in VIEW_KINDS:
        for number in range(1, 6):
            apply_view(image, View(kind, 0, number), DIGEST)
    assert image.equal(before)


@pytest.mark.parametrize("kind", VIEW_KINDS)
def test_the_name_of_a_view_says_all_of_it(kind):
    assert View.of(View(kind, 12, 3).name) == View(kind, 12, 3)


@pytest.mark.parametrize("name", ["light", "light-v2:0:1", "blur-v1:0:1", "light-v1:0:", "light-v1:x:1"])
def test_a_name_of_no_view_is_refused_with_one_that_would_do(name):
    with pytest.raises(ExtractError, match=r"there is no view .* light-v1:0:1, with flip, light, strong in front"):
        View.of(name)


def test_the_vectors_of_a_view_are_those_of_the_drawn_pixels(tmp_path, judged_once):
    """Through the whole of extract: pixels as a backbone are the image itself."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "one.png")
    view = View("strong", 5, 2)
    asked = [FeatureRequest("pixels"), FeatureRequest("pixels", view=view.name)]
    with judged_once():
        report = extract_features(read_images(tmp_path / "images"), asked, tmp_path / "cache")
    plain, drawn = (filled.cache.lookup(report.digests)[0].reshape(3, 32, 32) for filled in report.filled)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    assert np.allclose(plain * 255, image, atol=1e-3)
    assert np.allclose(drawn * 255, apply_view(image, view, bytes(report.digests[0])), atol=1e-3)
