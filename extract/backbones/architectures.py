"""Architectures: the layers that each family of networks is cut at, and their construction.

The table FAMILIES holds everything that is specific to an architecture. The rest is one mechanism: torchvision's graph
extraction of one node, then pooling. A new family is a new line.

Networks are built on torch's meta device, without memory for parameters: either tensors from a file replace them, or
only shapes are needed. So building vgg16 takes 20 ms and not the 5 s of a random initialisation.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode
from torchvision import models

from featurecache.base.errors import BackboneError
from featurecache.extract.backbones.listing import LITE_SIZES, PIXELS, check_name
from featurecache.extract.backbones.pixels import Pixels
from featurecache.extract.cache.transform_spec import TransformSpec


@dataclass(frozen=True)
class Family:
    """The layers that the networks of one family are cut at.

    last: the classification layer, which is replaced by the identity.
    feature_map: the node of the last feature map, or of the last tokens.
    stages: a regular expression of the modules that may end a stage before the last one, by `path` or by `path:Type`;
        `cutting.stage_ends` chooses among them.
    layer: the node whose output is taken by default; `feature_map` where empty.
    pooling: the default pooling of tokens; maps are averaged.
    ignored: prefixes of the names of tensors that inference does not use.
    positions: the tensor of position embeddings, (1, 1 + T, D), which another side of the input interpolates.
    """

    last: str
    feature_map: str
    stages: str
    layer: str = ""
    pooling: str = "avg"
    ignored: tuple[str, ...] = ()
    positions: str = ""


# Where one linear layer follows the pooled map, the pooled map is exactly the input of that layer. Networks with hidden
# layers in their classifier (AlexNet, VGG, SqueezeNet, MobileNetV3, MaxVit) are cut at the pooled map too: the hidden
# layers are specific to the 1000 classes. ConvNeXt normalises after pooling, so its default output is a vector.
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
    "VisionTransformer": Family(
        "heads.head",
        "encoder.ln",
        r"encoder\.layers\.encoder_layer_\d+",
        pooling="cls",
        positions="encoder.pos_embedding",
    ),
}

# Weights of these two were trained on inputs in -1..1, and torchvision builds them with these arguments.
BUILD_ARGUMENTS: dict[str, dict[str, Any]] = {
    name: {"transform_input": True, "aux_logits": False, "init_weights": False}
    for name in ("googlenet", "inception_v3")
}

LITE_MARGIN = 32
LITE_HALF = (0.5, 0.5, 0.5)

# Methods that write the values of a new parameter.
WRITING = frozenset({"normal_", "uniform_", "fill_", "zero_", "erfinv_", "mul_", "add_", "clamp_"})
PROBE_ROWS = 2  # two images, so that a layer that splits or merges images is detected


@dataclass(frozen=True)
class Whole:
    """What is known of a network that is run as it is: its operations are not traced, only its modules have names.

    has_head: whether it has timm's `forward_features` and `forward_head`; otherwise its output is all there is.
    pooling: the network's own pooling, as specs name it. tokens: the default pooling of tokens.
    n_prefix: tokens before those of the patches, of the class and registers. has_class_token: whether the first is one.
    stages: the modules that may end a stage, in execution order.
    """

    has_head: bool = False
    pooling: str = "flatten"
    tokens: str = "avg"
    n_prefix: int = 0
    has_class_token: bool = False
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Network:
    """A network without its last layer, and its family. leaf_modules: types that tracing keeps as one operation.

    whole: of a network that is not traced. digest: of its tensors as the file has them, where loading adapts them.
    definition: what determines the vectors besides the tensors, as specs have it.
    """

    module: nn.Module
    family: Family
    leaf_modules: tuple[type[nn.Module], ...] = ()
    whole: Whole | None = None
    digest: str = ""
    definition: str = ""


def build_network(name: str, meta: Mapping[str, Any] | None = None) -> Network:
    """Build a network without its last layer, in eval mode; its parameters are on the meta device.

    meta: torchvision's metadata of the weights that will be loaded; vision transformers need its image size.
    Raises UnknownBackbone if no network has that name.
    """
    check_name(name)
    with _ShapesOnly(), warnings.catch_warnings():
        # GoogLeNet and Inception warn that their random initialisation will change; it is not used here.
        warnings.simplefilter("ignore", FutureWarning)
        network = _build(name, meta or {})
    network.module.set_submodule(network.family.last, nn.Identity())
    network.module.eval().requires_grad_(False)
    return network


def lite_transform(name: str) -> TransformSpec:
    """Return the transform of an EfficientNet-Lite: resize to size + 32, centre crop, values in -1..1."""
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
    try:
        module: nn.Module = models.get_model(name, weights=None, **arguments)
    except AssertionError as error:
        side = arguments.get("image_size")
        raise BackboneError(
            f"{name} does not take images of {side} x {side} pixels: {error} Choose another --size, or leave it out."
        ) from error
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
    """Move symmetric zero padding into the convolution: one copy of the feature map less, the same result."""
    padding = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
    left, right, top, bottom = padding
    if left == right and top == bottom:
        convolution.padding = (top, left)
        convolution.static_padding = nn.Identity()


class _ShapesOnly(TorchFunctionMode):
    """Create new parameters on the meta device, and leave tensors computed from numbers (indices, widths) on the CPU.

    `with torch.device("meta")` would move those too, and RegNet reads its widths back from a tensor. Random values are
    not drawn on the meta device, where torch would go through Python for each parameter.
    """

    CONSTRUCTORS = frozenset({torch.empty, torch.zeros, torch.ones})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.CONSTRUCTORS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        tensor = args[0] if args else kwargs.get("tensor")
        if is_initialiser(func) and isinstance(tensor, Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **kwargs)


def is_initialiser(func: Any) -> bool:
    """Whether a function of torch writes initial values into its first argument."""
    return getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in WRITING


class _SameShapes(TorchFunctionMode):
    """Return the input of an operation whose output has the same shape, instead of the output.

    Most operations of a network are such ones, and on the meta device torch goes through Python for each: together
    four fifths of the time that the shapes of efficientnet_lite0 take.
    """

    UNARY = frozenset(
        {
            F.batch_norm, F.layer_norm, F.relu, F.relu6, F.hardtanh, F.silu, F.hardswish, F.hardsigmoid, F.gelu,
            F.dropout, F.softmax, torch.relu, torch.relu_, torch.sigmoid, Tensor.sigmoid, Tensor.relu, Tensor.softmax,
        }
    )  # fmt: skip
    BINARY = frozenset(
        {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.mul, Tensor.__mul__}
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.UNARY and args:
            return args[0]
        if func in self.BINARY and len(args) == 2 and _are_alike(*args):
            return args[0]
        return func(*args, **(kwargs or {}))


def _are_alike(one: Any, other: Any) -> bool:
    both_tensors = isinstance(one, Tensor) and isinstance(other, Tensor)
    return both_tensors and one.shape == other.shape and one.dtype == other.dtype


def output_on_meta(module: nn.Module, side: int) -> Tensor | Any:
    """Return the output of `module` for two uint8 images (2, 3, S, S) on the meta device: shapes without arithmetic.

    The module is not changed. Returns a meta tensor, or whatever else the module returns. Raises BackboneError if it
    does not accept images of this side: too small for its strides, or not the side that a transformer was trained for.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    images = torch.empty((PROBE_ROWS, 3, side, side), dtype=torch.uint8, device="meta")
    try:
        with torch.inference_mode(), _SameShapes():
            return torch.func.functional_call(module, shapes, (images,))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BackboneError(
            f"The network does not take images of {side} x {side} pixels. Choose another --size, or leave it out."
        ) from error
