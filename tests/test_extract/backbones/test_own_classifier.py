"""A backbone's own classes from cached features are those that the whole network would have said."""

import numpy as np
import pytest
import torch
from torchvision import models

from featurecache.extract.backbones import own_classifier as source_classes
from featurecache.extract.backbones.own_classifier import last_layer, source_proba
from featurecache.extract.backbones.registry import load_backbone
from featurecache.extract.backbones.weights import WeightsSource, find_weights


@pytest.fixture
def random_weights(tmp_path, monkeypatch):
    """Let the default weights of a torchvision network be random ones; returns the whole network."""

    def make(name: str) -> torch.nn.Module:
        torch.manual_seed(0)
        network = models.get_model(name, weights=None).eval()
        path = tmp_path / f"{name}.pth"
        torch.save(network.state_dict(), path)
        found = find_weights(name)
        source = WeightsSource(name, found.name, path, found.transform, found.url, found.meta)
        monkeypatch.setattr(source_classes, "find_weights", lambda _: source)
        return network

    return make


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny"])
def test_probabilities_are_those_of_the_whole_network(name, random_weights, tmp_path):
    network = random_weights(name)
    side = 96
    backbone = load_backbone(name, weights=str(tmp_path / f"{name}.pth"), size=side)
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.transform.mean, backbone.transform.std))
    with torch.inference_mode():
        theirs = network((images / 255 - mean) / std).softmax(1).numpy()
        ours = source_proba(name, backbone.module(images).numpy())
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "alexnet"])
def test_a_network_with_a_hidden_classifier_has_none(name, random_weights):
    random_weights(name)
    assert last_layer(name) is None


def test_the_pixels_have_no_classes():
    assert source_proba("pixels", np.zeros((2, 3072))) is None


def test_features_of_another_width_have_none():
    assert source_proba("efficientnet_lite0", np.zeros((2, 40))) is None
