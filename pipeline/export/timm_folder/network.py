"""The network of timm that computes the features of a head, with that head as its last layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from featurecache.base.errors import PipelineError, UsageError
from featurecache.base.text import printable
from featurecache.classify.heads.fitted.kinds import FittedLinear
from featurecache.extract.backbones.libraries.timm_networks import TimmConfig, timm_library
from featurecache.extract.backbones.names import HUB, LOCAL, TIMM, library_of
from featurecache.extract.backbones.registry import load_network

if TYPE_CHECKING:
    from featurecache.extract.backbones.architectures import Network
    from featurecache.extract.backbones.registry import Backbone
    from featurecache.features.new_images import NewImages
    from featurecache.predictor import Predictor

# Networks of other libraries whose name in timm is another.
NAMES_IN_TIMM: Mapping[str, str] = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "mobilenet_v2": "mobilenetv2_100",
}
LIBRARIES = (TIMM, HUB, LOCAL)
# Relative to the largest number of a vector; engines may differ by as much.
NEAR = 1e-4
N_CHECKED = 4
ONNX = "Export it as one ONNX file, by --format onnx."


@dataclass(frozen=True)
class TimmNetwork:
    """A network of timm: its architecture, the arguments of that, and what timm says of it."""

    module: Any
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)


def linear_layer(predictor: Predictor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return weights (C, D) and bias (C,), float32, whose softmax is what a predictor says, temperatures included.

    Raises UsageError for a head that is not linear.
    """
    head, meta = predictor._loaded.head, predictor._meta
    if not isinstance(head, FittedLinear):
        raise UsageError(
            f"The last layer of a network of timm is linear, and the head {printable(predictor.name)} is not. Name a "
            f"linear one by --head, such as logistic, ridge, linear_svm, lda or centroid; or: {ONNX}"
        )
    if len(head.classes_) != len(predictor.classes):
        raise UsageError(f"The head {printable(predictor.name)} does not know all classes of the run. {ONNX}")
    temperature = head.temperature * meta.tempering
    coef, bias = (np.asarray(each, np.float64) / temperature for each in (head.coef_, head.intercept_))
    return coef.astype(np.float32), bias.astype(np.float32)


def timm_network(predictor: Predictor, images: NewImages, say: Callable[[str], None]) -> TimmNetwork:
    """Return the network of timm with the head of a predictor.

    Raises UsageError or PipelineError where timm has none that computes the same features, BackboneError without timm.
    """
    coef, bias = linear_layer(predictor)
    backbone, request = images.backbone(say), images.request
    network, found, _, _ = load_network(request.backbone, weights=request.weights, size=request.size)
    side = request.size if found.config is not None and found.config.pretrained.get("fixed_input_size") else None
    made = _built(request.backbone, network, found.config, n_classes=len(bias), side=side)
    _check_features(made.module, backbone)
    _set_classifier(made.module, torch.from_numpy(coef), torch.from_numpy(bias), request.backbone)
    return made


def _built(
    backbone: str, network: Network, config: TimmConfig | None, *, n_classes: int, side: int | None
) -> TimmNetwork:
    """Return a network of timm for some classes, with the tensors of ours in all layers but the last."""
    timm = timm_library(backbone)
    if config is not None and library_of(backbone) in LIBRARIES:
        architecture, arguments = config.architecture, dict(config.arguments)
    else:
        architecture, arguments = NAMES_IN_TIMM.get(backbone, backbone), {}
    if library_of(backbone) not in (*LIBRARIES, "") or not timm.is_model(architecture):
        raise UsageError(
            f"timm has no network like {printable(backbone)}: those of timm itself, EfficientNet-Lite, and ResNets, "
            f"DenseNets and EfficientNets of torchvision can be exported for it. {ONNX}"
        )
    if side is not None:
        arguments["img_size"] = side
    module = timm.create_model(architecture, pretrained=False, num_classes=n_classes, **arguments)
    missing = module.load_state_dict(_renamed(backbone, architecture, network, module), strict=False).missing_keys
    if not all(_is_of_classifier(module, name) for name in missing):
        raise UsageError(f"timm's {architecture} has other layers than {printable(backbone)}. {ONNX}")
    return TimmNetwork(module.eval().requires_grad_(False), architecture, arguments)


def _renamed(backbone: str, architecture: str, network: Network, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of our network by timm's names: the same ones, or in the same order with the same shapes."""
    dropped = (f"{network.family.last}.", *network.family.ignored)
    ours = {name: tensor for name, tensor in network.module.state_dict().items() if not name.startswith(dropped)}
    theirs = {name: each for name, each in module.state_dict().items() if not _is_of_classifier(module, name)}
    if set(ours) != set(theirs) and len(ours) == len(theirs):
        ours = dict(zip(theirs, ours.values(), strict=True))
    if set(ours) != set(theirs) or any(ours[name].shape != theirs[name].shape for name in ours):
        raise UsageError(f"timm's {printable(architecture)} has other layers than {printable(backbone)}. {ONNX}")
    return ours


def classifiers_of(module: Any) -> list[str]:
    """Return the names of the last layers of a network of timm."""
    named = module.pretrained_cfg.get("classifier") or ()
    return [named] if isinstance(named, str) else list(named)


def _is_of_classifier(module: Any, name: str) -> bool:
    return name.startswith(tuple(f"{each}." for each in classifiers_of(module)))


def _check_features(module: Any, backbone: Backbone) -> None:
    """Raise UsageError where timm's last layer does not take the features of the run."""
    from featurecache.export.timm_folder.agreement import normalised

    side = backbone.transform.crop
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N_CHECKED, 3, side, side), dtype=torch.uint8, generator=random)
    with torch.inference_mode():
        ours = backbone.module(pixels)
        theirs = module.forward_head(module.forward_features(normalised(pixels, backbone.transform)), pre_logits=True)
    is_same = theirs.shape == ours.shape and bool((theirs - ours).abs().max() <= NEAR * ours.abs().max())
    if not is_same:
        raise UsageError(
            f"The last layer of timm's network takes other numbers than the features of {printable(backbone.name)}, "
            f"which are of the layer {printable(backbone.layer)}, pooled by {backbone.pooling}. {ONNX}"
        )


def _set_classifier(module: Any, coef: Tensor, bias: Tensor, backbone: str) -> None:
    """Put weights (C, D) and bias (C,) into the last layers. Raises PipelineError for a last layer of another kind."""
    for name in classifiers_of(module):
        layer = module.get_submodule(name)
        is_linear = isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None
        if not is_linear or layer.weight.numel() != coef.numel():
            raise PipelineError(f"The last layer of timm's network for {printable(backbone)} is not linear. {ONNX}")
        with torch.no_grad():
            layer.weight.copy_(coef.reshape(layer.weight.shape))
            layer.bias.copy_(bias)
