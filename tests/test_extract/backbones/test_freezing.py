"""A network as two gives what it gives as one, wherever it is split, and says where that can be."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch

from featurecache.base.errors import BackboneError, UnknownLayer
from featurecache.extract.backbones.architectures import Network, build_network
from featurecache.extract.backbones.cuts import CutRequest
from featurecache.extract.backbones.cutting import cut_network
from featurecache.extract.backbones.freezing import split_network
from featurecache.extract.backbones.weights import fill_network, find_weights
from featurecache.extract.cache.transform_spec import TransformSpec, scaled_to

SIDE = 64


# Normal numbers, which large tensors repeat: a network of 100 million weights is not drawn in less than two seconds. A
# prime number of them, so that no two rows of a tensor are alike.
NUMBERS = torch.randn(65_521, generator=torch.Generator().manual_seed(0))


def normal(shape: torch.Size) -> torch.Tensor:
    """Numbers in this shape, which repeat from 65,521 on."""
    n = shape.numel()
    return NUMBERS.repeat(-(-n // len(NUMBERS)))[:n].reshape(shape)


@lru_cache(maxsize=1)  # the tests of one network follow each other
def random_tensors(name: str) -> dict[str, torch.Tensor]:
    """Random weights of a network, its batch norms far from the identity."""
    tensors = {}
    for key, tensor in build_network(name).module.state_dict().items():
        if not tensor.is_floating_point():
            tensors[key] = torch.zeros(tensor.shape, dtype=tensor.dtype)
            continue
        value = normal(tensor.shape)
        if key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            value = 1 + 0.2 * value.tanh()
        tensors[key] = value.div_(max(1, value[0].numel() if value.ndim > 1 else 1) ** 0.5)
    return tensors


def filled(name: str) -> tuple[Network, TransformSpec]:
    """A network with these weights, and its transform, to a side of 64 where it takes that."""
    network = build_network(name)
    fill_network(network, random_tensors(name), backbone=name, file_name="random")
    transform = find_weights(name).transform
    return network, transform if name.startswith("vit") else scaled_to(transform, SIDE)


@pytest.mark.parametrize(
    ("name", "unfreeze", "layer"),
    [
        ("resnet18", None, "layer3"),
        ("resnet18", "layer3.1", "layer3.0"),
        ("resnet18", "layer1", "maxpool"),
        ("efficientnet_lite0", None, "_blocks.10"),
        ("efficientnet_lite0", "_conv_head", "_blocks.15"),
        ("mobilenet_v3_small", "features.5", "features.4"),
        ("densenet121", "1", "features.denseblock3"),
        ("swin_t", "features.7", "features.6"),
        ("convnext_tiny", "1", "features.5"),
        ("vit_b_32", "encoder.layers.encoder_layer_11", "encoder.layers.encoder_layer_10"),
        ("vgg11", "1", "features.15"),
    ],
)
def test_upper_of_lower_is_the_whole_network(name, unfreeze, layer):
    network, transform = filled(name)
    images = torch.randint(0, 256, (2, 3, transform.crop, transform.crop), dtype=torch.uint8)
    whole = cut_network(name, network, transform).module(images)
    split = split_network(name, network, transform, CutRequest(), unfreeze=unfreeze)
    assert split.layer == layer
    lower = cut_network(name, network, transform, [CutRequest(layer, "flatten")])
    maps = lower.module(images).reshape(2, *split.shape)
    with torch.no_grad():
        again = split.upper(maps)
    assert whole.isfinite().all()
    assert again.shape[1] == split.feature_dim
    assert (again - whole).norm() <= 1e-6 * whole.norm()


def test_all_of_a_network_takes_the_images():
    network, transform = filled("resnet18")
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    split = split_network("resnet18", network, transform, CutRequest(), unfreeze="all")
    assert (split.layer, split.shape) == (None, (3, SIDE, SIDE))
    with torch.no_grad():
        assert split.upper(images).equal(cut_network("resnet18", network, transform).module(images))
    parameters = {id(parameter) for parameter in network.module.parameters()}
    assert {id(parameter) for stage in split.stages for parameter in stage} == parameters


def test_the_parameters_stand_by_stage_and_are_the_networks_own():
    network, transform = filled("resnet18")
    split = split_network("resnet18", network, transform, CutRequest(), unfreeze="2")
    for stage, name in zip(split.stages, ("layer3", "layer4"), strict=True):
        expected = network.module.get_submodule(name).parameters()
        assert {id(parameter) for parameter in stage} == {id(parameter) for parameter in expected}


def test_what_another_layer_and_pooling_give_is_where_the_upper_part_ends():
    network, transform = filled("resnet18")
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    wanted = CutRequest("layer3", "max")
    whole = cut_network("resnet18", network, transform, [wanted]).module(images)
    split = split_network("resnet18", network, transform, wanted, unfreeze="layer3")
    maps = cut_network("resnet18", network, transform, [CutRequest("layer2", "flatten")]).module(images)
    with torch.no_grad():
        assert torch.allclose(split.upper(maps.reshape(2, *split.shape)), whole, rtol=1e-5)


@pytest.mark.parametrize("unfreeze", ["layer5", "layer4.0.conv2", "0", "-1", "fc", ""])
def test_a_split_that_does_not_exist_lists_those_that_do(unfreeze):
    network, transform = filled("resnet18")
    with pytest.raises(UnknownLayer) as refused:
        split_network("resnet18", network, transform, CutRequest(), unfreeze=unfreeze)
    assert str(refused.value) == (
        f"resnet18 cannot be split below '{unfreeze}'; --unfreeze takes a number of stages up to 4, 'all', or one of "
        "conv1, bn1, layer1, layer1.0, layer1.1, layer2, layer2.0, layer2.1, layer3, layer3.0, layer3.1, layer4, "
        "layer4.0, layer4.1"
    )


def test_stages_end_in_several_places_and_cannot_be_split():
    network, transform = filled("resnet18")
    with pytest.raises(BackboneError, match="The layer 'stages' is the ends of all stages at once"):
        split_network("resnet18", network, transform, CutRequest("stages"), unfreeze="1")


def test_pixels_have_nothing_to_train():
    network = build_network("pixels")
    with pytest.raises(BackboneError, match="pixels has nothing that could be trained above 'all'"):
        split_network("pixels", network, find_weights("pixels").transform, CutRequest(), unfreeze="all")
