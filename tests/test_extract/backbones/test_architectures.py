"""Networks are built, and the shapes of their layers found, without the arithmetic of either."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from featurecache.base.errors import BackboneError
from featurecache.extract.backbones.architectures import build_network, output_on_meta
from featurecache.extract.backbones.cuts import CutRequest
from featurecache.extract.backbones.cutting import cut_network
from featurecache.extract.backbones.weights import find_weights


class Operations(TorchDispatchMode):
    """Counts what torch computes."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "swin_t"])
def test_a_network_is_built_and_cut_without_random_values_and_activations(name):
    with Operations() as done:
        network = build_network(name)
        cut_network(name, network, find_weights(name).transform, [CutRequest("stages")])
    unwanted = {"normal_", "uniform_", "erfinv_", "native_batch_norm", "native_layer_norm", "hardtanh", "relu", "gelu"}
    assert {name: n for name, n in done.counts.items() if name in unwanted} == {}


class Mixed(nn.Module):
    """Operations that keep the shape of their input, and others between them."""

    def __init__(self, *, other_width: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2)
        self.other = nn.Conv2d(3, other_width, 3, stride=2)
        self.norm = nn.BatchNorm2d(6).eval()
        self.activations = nn.Sequential(
            nn.ReLU(inplace=True), nn.ReLU6(), nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.GELU(), nn.Dropout()
        )  # fmt: skip

    def forward(self, images):
        x = images.float() * torch.tensor(0.5, device=images.device)
        maps = self.activations(self.norm(self.first(x)))
        both = maps + self.other(x)
        both += maps
        gated = both.mean((2, 3), keepdim=True).sigmoid() * both * both
        tokens = functional.layer_norm(gated.flatten(2), gated.flatten(2).shape[2:]).softmax(-1)
        return {
            "maps": maps,
            "both": both,
            "gated": gated,
            "tokens": tokens,
            "whole": images + 1,
            "mean": tokens.mean(2),
        }


def test_shapes_and_types_are_those_of_the_real_outputs():
    module = Mixed().eval()
    expected = module(torch.zeros((2, 3, 9, 9), dtype=torch.uint8))
    found = output_on_meta(module, 9)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        name: (value.shape, value.dtype) for name, value in expected.items()
    }


def test_maps_that_do_not_go_together_are_refused():
    with pytest.raises(BackboneError, match="does not take images of 9 x 9 pixels"):
        output_on_meta(Mixed(other_width=5), 9)
