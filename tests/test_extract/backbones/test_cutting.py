"""Where a network is cut, and that what comes out there is what torchvision says it is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from featurecache.base.errors import BackboneError, UnknownLayer
from featurecache.extract.backbones.architectures import LITE_SIZES, build_network
from featurecache.extract.backbones.cuts import CutNetwork, CutRequest
from featurecache.extract.backbones.cutting import TracedNetwork, cut_network
from featurecache.extract.backbones.weights import fill_network, find_weights
from featurecache.extract.engines.folding import fold_batch_norms

# The width of every stage, as the papers and model cards give it.
STAGE_WIDTHS = {
    "64 192 384 256 256": "alexnet",
    "64 128 256 512 512": "vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn",
    "96 256 512 512": "squeezenet1_0",
    "64 128 256 512": "squeezenet1_1 resnet18 resnet34 maxvit_t",
    "256 512 1024 2048": "resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d "
    "wide_resnet50_2 wide_resnet101_2",
    "256 512 1024 1024": "densenet121",
    "256 512 1280 1664": "densenet169",
    "256 512 1792 1920": "densenet201",
    "384 768 2112 2208": "densenet161",
    "480 832 1024": "googlenet",
    "288 768 2048": "inception_v3",
    "16 24 40 80 112 192 320 1280": "efficientnet_b0 efficientnet_b1 efficientnet_lite0 efficientnet_lite1",
    "16 24 48 88 120 208 352 1408": "efficientnet_b2",
    "16 24 48 88 120 208 352 1280": "efficientnet_lite2",
    "24 32 48 96 136 232 384 1536": "efficientnet_b3",
    "24 32 56 112 160 272 448 1792": "efficientnet_b4",
    "24 40 64 128 176 304 512 2048": "efficientnet_b5",
    "32 40 72 144 200 344 576 2304": "efficientnet_b6",
    "32 48 80 160 224 384 640 2560": "efficientnet_b7",
    "24 48 64 128 160 256 1280": "efficientnet_v2_s",
    "24 48 80 160 176 304 512 1280": "efficientnet_v2_m",
    "32 64 96 192 224 384 640 1280": "efficientnet_v2_l",
    "16 24 32 64 96 160 320 1280": "mobilenet_v2",
    "16 24 40 80 112 160 960": "mobilenet_v3_large",
    "16 24 40 48 96 576": "mobilenet_v3_small",
    "8 16 24 40 48 96 160 1280": "mnasnet0_5",
    "16 24 32 64 72 144 240 1280": "mnasnet0_75",
    "16 24 40 80 96 192 320 1280": "mnasnet1_0",
    "24 32 56 104 128 248 416 1280": "mnasnet1_3",
    "48 96 192 1024": "shufflenet_v2_x0_5",
    "116 232 464 1024": "shufflenet_v2_x1_0",
    "176 352 704 1024": "shufflenet_v2_x1_5",
    "244 488 976 2048": "shufflenet_v2_x2_0",
    "32 64 160 400": "regnet_x_400mf",
    "64 128 288 672": "regnet_x_800mf",
    "72 168 408 912": "regnet_x_1_6gf",
    "96 192 432 1008": "regnet_x_3_2gf",
    "80 240 720 1920": "regnet_x_8gf",
    "256 512 896 2048": "regnet_x_16gf",
    "336 672 1344 2520": "regnet_x_32gf",
    "48 104 208 440": "regnet_y_400mf",
    "64 144 320 784": "regnet_y_800mf",
    "48 120 336 888": "regnet_y_1_6gf",
    "72 216 576 1512": "regnet_y_3_2gf",
    "224 448 896 2016": "regnet_y_8gf",
    "224 448 1232 3024": "regnet_y_16gf",
    "232 696 1392 3712": "regnet_y_32gf",
    "528 1056 2904 7392": "regnet_y_128gf",
    "96 192 384 768": "convnext_tiny convnext_small swin_t swin_s swin_v2_t swin_v2_s",
    "128 256 512 1024": "convnext_base swin_b swin_v2_b",
    "192 384 768 1536": "convnext_large",
    "768 768 768 768": "vit_b_16 vit_b_32",
    "1024 1024 1024 1024": "vit_l_16 vit_l_32",
    "1280 1280 1280 1280": "vit_h_14",
}

# What `stages` was resolved to, and how torchvision's own answer at each node becomes a vector.
SPELLED_OUT = {
    "resnet18": "layer1+layer2+layer3+layer4",
    "mobilenet_v3_small": "features.1+features.3+features.6+features.8+features.11+features",
    "densenet121": "features.denseblock1+features.denseblock2+features.denseblock3+relu",
    "squeezenet1_1": "features.2+features.5+features.8+features",
    "swin_t": "features.1+features.3+features.5+norm",
    "convnext_tiny": "features.1+features.3+features.5+classifier.1",
}
QUARTERS = {
    "vit_b_32": (2, 5, 8),
    "vit_l_32": (5, 11, 17),
    "vit_h_14": (7, 15, 23),
}

SIDE = 96  # a fifth of the work of 224, and no map is smaller than 2 x 2

_kept: dict[str, torch.nn.Module] = {}


def network(name: str) -> torch.nn.Module:
    """A torchvision network with random weights, its batch norms far from the identity."""
    if name not in _kept:
        torch.manual_seed(len(name))
        module = models.get_model(name, weights=None).eval().requires_grad_(False)
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.2, 0.2)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.data.uniform_(0.5, 1.5)
        _kept[name] = module
    return _kept[name]


def cut(name: str, *wanted: CutRequest | str | None) -> CutNetwork:
    """The same network, cut."""
    filled = build_network(name)
    fill_network(filled, network(name).state_dict(), backbone=name, file_name="random")
    places = [one if isinstance(one, CutRequest) else CutRequest(one) for one in wanted]
    return cut_network(name, filled, find_weights(name).transform, places)


def random_images(side: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return random_images(SIDE)


def normalised(name: str, images: torch.Tensor) -> torch.Tensor:
    transform = find_weights(name).transform
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transform.mean, transform.std))
    return (images / 255 - mean) / std


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def pooled(name: str, nodes: list[str], images: torch.Tensor, *, largest: bool = False) -> list[torch.Tensor]:
    """torchvision's own answer at each node, pooled over its places."""
    answer = create_feature_extractor(network(name), nodes, suppress_diff_warning=True)
    with torch.inference_mode():
        maps = answer(normalised(name, images))
    places = (1, 2) if name.startswith("swin") else (2, 3)
    return [
        found if found.ndim == 2 else found.amax(places) if largest else found.mean(places)
        for found in (maps[node] for node in nodes)
    ]


# Stages


@pytest.mark.slow
def test_every_network_loses_its_last_layer_and_has_the_stages_of_its_paper():
    known = {name: list(map(int, widths.split())) for widths, names in STAGE_WIDTHS.items() for name in names.split()}
    assert sorted(known) == sorted([*models.list_models(module=models), *LITE_SIZES])
    for name, widths in known.items():
        source = find_weights(name)
        built = build_network(name, source.meta)
        assert isinstance(built.module.get_submodule(built.family.last), torch.nn.Identity), name
        assert not [n for n, tensor in built.module.state_dict().items() if tensor.shape[:1] == (1000,)], name
        usual, stages = cut_network(name, built, source.transform, [CutRequest(), CutRequest("stages")]).cuts
        assert stages.feature_dim == sum(widths), name
        assert stages.layer.startswith("stages:"), name
        nodes = stages.layer.removeprefix("stages:").split("+")
        assert len(nodes) == len(widths), name
        assert (nodes[-1], usual.feature_dim) == (usual.layer, widths[-1]), name


def test_the_stages_of_resnet50_are_3840_numbers():
    found = cut_network(
        "resnet50", build_network("resnet50"), find_weights("resnet50").transform, [CutRequest("stages")]
    )
    assert found.feature_dim == 256 + 512 + 1024 + 2048 == 3840


@pytest.mark.parametrize("name", SPELLED_OUT)
def test_the_vector_of_all_stages_is_torchvisions_pooled_maps_side_by_side(name, images):
    found = cut(name, "stages")
    assert found.cuts[0].layer == f"stages:{SPELLED_OUT[name]}"
    nodes = SPELLED_OUT[name].split("+")
    theirs = pooled(name, nodes, images)
    ours = found.module(images)
    assert (ours.dtype, ours.shape) == (torch.float32, torch.cat(theirs, 1).shape)
    start = 0
    for node, vectors in zip(nodes, theirs, strict=True):  # each by itself, for the maps differ in size by far
        columns = slice(start, start + vectors.shape[1])
        assert relative_error(ours[:, columns], vectors) < 1e-5, node
        start += vectors.shape[1]


@pytest.mark.parametrize("name", QUARTERS)
def test_a_network_of_one_shape_throughout_is_cut_at_every_quarter(name):
    source = find_weights(name)
    (stages,) = cut_network(name, build_network(name, source.meta), source.transform, [CutRequest("stages")]).cuts
    blocks = [f"encoder.layers.encoder_layer_{i}" for i in QUARTERS[name]]
    assert stages.layer == f"stages:{'+'.join([*blocks, 'encoder.ln'])}"
    assert stages.pooling == "cls"


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_another_pooling_is_applied_to_every_stage(name, images):
    found = cut(name, CutRequest("stages", "max"))
    assert found.cuts[0].pooling == "max"
    nodes = found.cuts[0].layer.removeprefix("stages:").split("+")
    theirs = torch.cat(pooled(name, nodes, images, largest=True), 1)
    assert relative_error(found.module(images), theirs) < 1e-5


def test_stages_with_a_pooling_end_in_the_map_that_the_pooling_alone_would_take(images):
    found = cut("convnext_tiny", CutRequest("stages", "max"), CutRequest(None, "max"))
    stages, alone = found.cuts
    assert stages.layer.endswith("+features")
    vectors = found.module(images)
    assert torch.equal(vectors[:, stages.columns][:, -768:], vectors[:, alone.columns])


def test_cls_is_refused_for_the_stages_of_a_network_without_tokens():
    with pytest.raises(BackboneError, match=r"^Pooling 'cls' takes the first token of a transformer"):
        cut("resnet18", CutRequest("stages", "cls"))


# Several layers at once


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", [None, "stages", "layer2", "conv1"]),
        ("mobilenet_v3_small", ["features.4", "stages", None]),
        ("densenet121", ["features.denseblock2", "features.transition1.norm", "stages"]),
        ("swin_t", ["features.3", None]),
        ("alexnet", ["classifier", "stages", "classifier.4"]),
    ],
)
def test_several_layers_at_once_are_those_of_each_alone(name, layers, images):
    together = cut(name, *layers)
    vectors = together.module(images)
    assert vectors.shape[1] == together.feature_dim
    start = 0
    for layer, found in zip(layers, together.cuts, strict=True):
        alone = cut(name, layer)
        assert (found.layer, found.pooling, found.feature_dim) == (
            alone.cuts[0].layer,
            alone.cuts[0].pooling,
            alone.feature_dim,
        )
        assert found.columns == slice(start, start + found.feature_dim)
        assert torch.equal(vectors[:, found.columns], alone.module(images))
        start += found.feature_dim


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_they_are_also_the_same_to_rounding_once_batch_norms_are_folded(name, images):
    """A norm whose input is asked for, too, cannot become part of its convolution."""
    layers = ["conv1", "layer1.0.conv1", None] if name == "resnet18" else ["features.conv0", "stages"]
    together = cut(name, *layers)
    with torch.inference_mode():
        vectors = fold_batch_norms(together.module)(images)
        for layer, found in zip(layers, together.cuts, strict=True):
            alone = fold_batch_norms(cut(name, layer).module)(images)
            assert relative_error(vectors[:, found.columns], alone) < 1e-6


@pytest.mark.parametrize("pooling", ["flatten", "max"])
def test_what_is_computed_in_place_behind_a_layer_does_not_reach_into_it(pooling):
    """In AlexNet a ReLU overwrites the very memory of the convolution before it."""
    both = cut("alexnet", CutRequest("features.8", pooling), CutRequest("features.9", pooling))
    vectors = both.module(random_images(224))
    before, after = (vectors[:, found.columns] for found in both.cuts)
    assert (before < 0).any()
    assert torch.equal(after, before.relu())


def test_a_vector_that_is_overwritten_is_kept_too(images):
    both = cut("alexnet", "classifier.4", "classifier.5")
    before, after = (both.module(images)[:, found.columns] for found in both.cuts)
    assert (before < 0).any()
    assert torch.equal(after, before.relu())


def test_one_node_under_two_names_is_two_equal_sets_of_columns(images):
    found = cut("mobilenet_v3_small", "features", "features.12", None)
    vectors = found.module(images)
    first, second, third = (vectors[:, each.columns] for each in found.cuts)
    assert [each.layer for each in found.cuts] == ["features", "features.12", "features"]
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert len([1 for name, _ in found.module.named_modules() if "pooling_" in name]) == 1


def test_two_poolings_of_one_layer_share_its_map(images):
    found = cut("resnet18", CutRequest("layer4", "avg"), CutRequest("layer4", "max"))
    mean, largest = (found.module(images)[:, each.columns] for each in found.cuts)
    assert (largest >= mean).all()
    assert relative_error(largest, pooled("resnet18", ["layer4"], images, largest=True)[0]) < 1e-5


def test_nothing_behind_the_last_layer_is_kept():
    found = cut("resnet18", "layer1", "layer2")
    parameters = {name.split(".")[1] for name, _ in found.module.named_parameters()}
    assert parameters == {"conv1", "bn1", "layer1", "layer2"}


def test_an_unknown_layer_among_good_ones_is_refused_with_its_neighbours():
    with pytest.raises(UnknownLayer, match=r"^resnet18 has no layer 'layer5'; nearest: layer4"):
        cut("resnet18", "layer4", "layer5")
    with pytest.raises(UnknownLayer, match=r"^resnet18 has no layer 'stage'"):
        cut("resnet18", "stage")


class Meanwhile(nn.Module):
    """A network that another thread does something during the trace of."""

    def __init__(self, done: Callable[[], object]) -> None:
        super().__init__()
        self.done, self.last = done, nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.done).result()
        return self.last(images)


def test_other_threads_run_their_networks_while_one_is_traced():
    found, other = [], nn.Linear(2, 3)
    module = Meanwhile(lambda: found.append(other(torch.ones(1, 2))))
    traced = TracedNetwork("mine", replace(build_network("pixels"), module=module))
    assert list(traced.paths.values()) == ["images", "last"]
    assert found[0].shape == (1, 3)


def test_traces_in_several_threads_leave_torch_as_it_was():
    before = nn.Module.__call__, nn.Module.__getattr__
    with ThreadPoolExecutor(4) as pool:
        traced = list(pool.map(lambda _: TracedNetwork("pixels", build_network("pixels")), range(40)))
    assert (nn.Module.__call__, nn.Module.__getattr__) == before
    assert len({tuple(each.paths.values()) for each in traced}) == 1
