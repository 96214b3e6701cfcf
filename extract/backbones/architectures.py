"""Which networks there are, where each family ends, and how to build one without its last layer.

The table FAMILIES is all that is known about an architecture. Everything else is one mechanism: torchvision's graph
extraction of one node, then pooling. A new family is a new line.

Networks are built without memory for their parameters (on torch's meta device), for they are about to be filled from a
file, or only asked for their shapes. So building vgg16 takes 20 ms and not the 5 s of a random initialisation.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from featurecache.base.errors import BackboneError, UnknownBackbone
from featurecache.extract.backbones.listing import LITE_SIZES, PIXELS
from featurecache.extract.backbones.pixels import Pixels
from featurecache.extract.cache.transform_spec import TransformSpec


@dataclass(frozen=True)
class Family:
    """Where the networks of one family end.

    last: the layer that is removed; what it leaves behind hands its input on.
    feature_map: the node of the last feature map, or of the last tokens.
    stages: a regular expression of the modules that may end a stage before the last one, by `path` or by `path:Type`;
        `cutting.py` says which of them do.
    layer: the node whose output is taken by default; `feature_map` where empty.
    pooling: how tokens or maps become a vector by default.
    ignored: beginnings of the names of tensors that play no part in inference.
    """

    last: str
    feature_map: str
    stages: str
    layer: str = ""
    pooling: str = "avg"
    ignored: tuple[str, ...] = ()


# Where one linear layer follows the pooled map, map + pooling is exactly the input of that layer. Networks with a
# hidden classifier (AlexNet, VGG, SqueezeNet, MobileNetV3, MaxVit) end at the pooled map, too: their hidden layers are
# made for the 1000 classes. ConvNeXt normalises after pooling, so its default is a vector.
FAMILIES = {
    "AlexNet": Family("classifier.6", "features", r"features\.(2|5|7|9)"),
    "ConvNeXt": Family("classifier.2", "features", r"features\.[135]", layer="classifier.1"),
    "DenseNet": Family("classifier", "relu", r"features\.denseblock[1-3]"),
    "EfficientNet": Family("classifier.1", "features", r"features\.[1-9]"),
    "EfficientNetLite": Family("_fc", "_swish_1", r"_blocks\.\d+"),
    "GoogLeNet": Family("fc", "inception5b", "inception(3b|4e)", ignored=("aux1.", "aux2.")),
    "Inception3": Family("fc", "Mixed_7c", "Mixed_(5d|6e)", ignored=("AuxLogits.",)),
    "MNASNet": Family("classifier.1", "layers", r"layers\.([7-9]|1[0-3])"),
    "MaxVit": Family("classifier.5", "blocks", r"blocks\.[0-2]"),
    "MobileNetV2": Family("classifier.1", "features", r"features\.[1-9]\d*"),
    "MobileNetV3": Family("classifier.3", "features", r"features\.[1-9]\d*"),
    "Pixels": Family("last", "pixels", r"(?!)", layer="flatten"),
    "RegNet": Family("fc", "trunk_output", r"trunk_output\.block[1-3]"),
    "ResNet": Family("fc", "layer4", "layer[1-3]"),
    "ShuffleNetV2": Family("fc", "conv5", "stage[2-4]"),
    "SqueezeNet": Family("classifier.1", "features", r"features\.\d+:MaxPool2d"),
    "SwinTransformer": Family("head", "norm", r"features\.[135]"),
    "VGG": Family("classifier.6", "features", r"features\.\d+:MaxPool2d"),
    "VisionTransformer": Family("heads.head", "encoder.ln", r"encoder\.layers\.encoder_layer_\d+", pooling="cls"),
}

# Weights of these two were trained on inputs in -1..1, and torchvision builds them with these arguments.
BUILD_ARGUMENTS: dict[str, dict[str, Any]] = {
    name: {"transform_input": True, "aux_logits": False, "init_weights": False}
    for name in ("googlenet", "inception_v3")
}

LITE_MARGIN = 32
LITE_HALF = (0.5, 0.5, 0.5)

N_NEIGHBOURS = 3  # as many suggestions as one reads
PROBE_ROWS = 2  # two images, so that a layer which splits or merges images is noticed


@dataclass(frozen=True)
class Network:
    """A network whose last layer has been removed, and the family that it is of."""

    module: nn.Module
    family: Family
    leaf_modules: tuple[type[nn.Module], ...] = ()


def network_names() -> list[str]:
    """Every name that `load_backbone` takes: the three that come with pip first, the pixels, then torchvision's."""
    names: list[str] = models.list_models(module=models)
    return [*LITE_SIZES, PIXELS, *names]


def check_name(name: str) -> None:
    """Raise UnknownBackbone, with the nearest names, where there is no network of that name."""
    names = network_names()
    if name in names:
        return
    near = difflib.get_close_matches(name.lower(), names, N_NEIGHBOURS, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {len(names)}, such as efficientnet_lite0."
    raise UnknownBackbone(f"There is no backbone '{name}'. {hint} `featurecache backbones` lists them all.")


def build_network(name: str, meta: Mapping[str, Any] | None = None) -> Network:
    """Build a network without its last layer, in eval mode; its parameters have shapes but no values.

    meta: what torchvision says about the weights that will be loaded; transformers need its image size.
    Raises UnknownBackbone where there is no network of that name.
    """
    check_name(name)
    with _ShapesOnly(), warnings.catch_warnings():
        # GoogLeNet and Inception announce another random initialisation; none is used here.
        warnings.simplefilter("ignore", FutureWarning)
        network = _build(name, meta or {})
    network.module.set_submodule(network.family.last, nn.Identity())
    network.module.eval().requires_grad_(False)
    return network


def lite_transform(name: str) -> TransformSpec:
    """The transform of an EfficientNet-Lite: a resize to size + 32, the centre, and values in -1..1."""
    size = LITE_SIZES[name]
    return TransformSpec(size + LITE_MARGIN, size, "bicubic", True, LITE_HALF, LITE_HALF)


def _build(name: str, meta: Mapping[str, Any]) -> Network:
    if name == PIXELS:
        return Network(Pixels(), FAMILIES["Pixels"])
    return _build_lite(name) if name in LITE_SIZES else _build_torchvision(name, meta)


def _build_torchvision(name: str, meta: Mapping[str, Any]) -> Network:
    arguments = dict(BUILD_ARGUMENTS.get(name, {}))
    if name.startswith("vit_") and "min_size" in meta:
        arguments["image_size"] = meta["min_size"][0]
    module: nn.Module = models.get_model(name, weights=None, **arguments)
    return Network(module, FAMILIES[type(module).__name__])


def _build_lite(name: str) -> Network:
    from efficientnet_lite_pytorch import EfficientNet
    from efficientnet_lite_pytorch.utils import Conv2dStaticSamePadding

    module = EfficientNet.from_name(name.replace("_", "-"))
    for layer in module.modules():
        if isinstance(layer, Conv2dStaticSamePadding):
            _pad_inside(layer)
    return Network(module, FAMILIES["EfficientNetLite"], (Conv2dStaticSamePadding,))


def _pad_inside(convolution: Any) -> None:
    """Let a convolution do its own zero padding where both sides are equal: one copy of the map less, the same sums."""
    padding = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
    left, right, top, bottom = padding
    if left == right and top == bottom:
        convolution.padding = (top, left)
        convolution.static_padding = nn.Identity()


class _ShapesOnly(TorchFunctionMode):
    """Send new parameters to the meta device, and leave what is computed from numbers (indices, widths) where it is.

    `with torch.device("meta")` would send everything, and RegNet reads its widths back from a tensor.
    """

    CONSTRUCTORS = frozenset({torch.empty, torch.zeros, torch.ones})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.CONSTRUCTORS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def output_on_meta(module: nn.Module, side: int) -> Tensor | Any:
    """What `module` answers to two uint8 images of side S, on the meta device: shapes without arithmetic.

    The module itself is left as it is. Returns a meta tensor, or whatever else the module returns. Raises BackboneError
    where it takes no images of this side: too small for its strides, or another than a transformer was made for.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    images = torch.empty((PROBE_ROWS, 3, side, side), dtype=torch.uint8, device="meta")
    try:
        with torch.inference_mode():
            return torch.func.functional_call(module, shapes, (images,))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BackboneError(
            f"The network does not take images of {side} x {side} pixels. Choose another --size, or leave it out."
        ) from error
